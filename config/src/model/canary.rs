//! A canary: a share of the requests goes to another pool.
//!
//! Who goes is a pure function of the request, so the same one is answered by the same pool on every proxy, and a
//! larger share only adds to those who went before.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::ToSchema;

use super::{HeaderMatch, PoolId, TenantId};

/// Some requests go to another pool than the rest. When that pool has no backend to offer, they go with the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// Where they go.
    pub pool: PoolId,
    /// The share that goes there, in percent.
    #[serde(default)]
    pub percent: Percent,
    /// Who stays together.
    #[serde(default)]
    pub by: CanaryBy,
    /// Requests with this field go there, whatever the share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<HeaderMatch>,
    /// Requests with this cookie go there, whatever the share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<CookieMatch>,
}

/// A cookie that must be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CookieMatch {
    /// Its name.
    pub name: String,
    /// Its exact value.
    pub value: String,
}

/// Who of a canary's requests stays together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CanaryBy {
    /// All requests from one address. A school behind one address goes as a whole.
    #[default]
    Client,
    /// All requests of one tenant.
    Tenant,
    /// None: each request goes by itself. For apps whose instances keep nothing that another could miss.
    Request,
}

impl CanaryBy {
    /// The name used in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Tenant => "tenant",
            Self::Request => "request",
        }
    }
}

/// A share, 0-100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = u8, minimum = 0, maximum = 100)]
pub struct Percent(u8);

impl Percent {
    /// All.
    pub const ALL: Self = Self(100);

    /// `None` above 100.
    pub const fn new(percent: u8) -> Option<Self> {
        if percent <= 100 { Some(Self(percent)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }
}
impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(u8::deserialize(deserializer)?).ok_or_else(|| de::Error::custom("a share is a number from 0 to 100"))
    }
}

/// What the share is taken of.
#[derive(Debug, Clone, Copy)]
pub struct CanaryAsked {
    /// For whom a request is; `None` on public paths.
    pub tenant: Option<TenantId>,
    /// Who asks.
    pub client: IpAddr,
    /// Chance, new for every request.
    pub chance: u64,
}

impl Canary {
    /// Whether a request belongs to the share.
    pub fn takes(&self, asked: &CanaryAsked) -> bool {
        // The pool's name is in it, so that another canary does not try its luck on the same ones.
        let start = fnv(FNV_OFFSET, self.pool.as_str().as_bytes());
        let tenant = |hash| fnv(hash, &asked.tenant.map_or([0; 16], TenantId::to_bytes));
        let hash = match self.by {
            CanaryBy::Request => asked.chance,
            CanaryBy::Tenant => mixed(tenant(start)),
            CanaryBy::Client => mixed(match asked.client {
                IpAddr::V4(ip) => fnv(tenant(start), &ip.octets()),
                IpAddr::V6(ip) => fnv(tenant(start), &ip.octets()),
            }),
        };
        // The upper half scaled to 0-99 (Lemire: a multiplication instead of a division).
        ((hash >> 32) * 100) >> 32 < u64::from(self.percent.0)
    }
}

/// FNV-1a, 64 bits (RFC 9923): the same on every proxy and in every release, as no seeded hash is.
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// Spreads what FNV leaves in the low bits over all of them (the finaliser of MurmurHash3).
const fn mixed(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canary(percent: u8, by: CanaryBy) -> Canary {
        let percent = Percent::new(percent).expect("a share");
        Canary { pool: "next".parse().expect("a pool"), percent, by, header: None, cookie: None }
    }

    fn asked(tenant: u128, client: [u8; 4], chance: u64) -> CanaryAsked {
        CanaryAsked { tenant: Some(TenantId::from_parts(1, tenant)), client: client.into(), chance }
    }

    #[test]
    fn the_share_is_what_was_asked_for() {
        for by in [CanaryBy::Client, CanaryBy::Tenant, CanaryBy::Request] {
            for percent in [0, 1, 10, 50, 99, 100] {
                let (canary, mut chance) = (canary(percent, by), 7_u64);
                let took = (0..20_000_u32).filter(|n| {
                    chance = mixed(chance.wrapping_add(0x9e37_79b9_7f4a_7c15));
                    let [_, b, c, d] = n.to_be_bytes();
                    canary.takes(&asked(u128::from(*n), [10, b, c, d], chance))
                });
                // Four standard deviations of 20,000 draws are at most 1.5 %.
                let found = took.count() as f64 / 200.0;
                assert!((found - f64::from(percent)).abs() < 1.5, "{found} of {percent} % by {by:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_larger_share_only_adds(tenant: u128, client: [u8; 4], less in 0_u8..=100, more in 0_u8..=100) {
            let (less, more) = (less.min(more), less.max(more));
            for by in [CanaryBy::Client, CanaryBy::Tenant] {
                let request = asked(tenant, client, 0);
                prop_assert!(!canary(less, by).takes(&request) || canary(more, by).takes(&request));
            }
        }

        #[test]
        fn who_stays_together_is_answered_by_one_pool(tenant: u128, a: [u8; 4], b: [u8; 4], x: u64, y: u64) {
            let by_tenant = canary(50, CanaryBy::Tenant);
            prop_assert_eq!(by_tenant.takes(&asked(tenant, a, x)), by_tenant.takes(&asked(tenant, b, y)));
            let by_client = canary(50, CanaryBy::Client);
            prop_assert_eq!(by_client.takes(&asked(tenant, a, x)), by_client.takes(&asked(tenant, a, y)));
        }
    }
}
