//! The cookie that leads a visitor back to a backend. Signed for one tenant and one pool: nobody can write one, and one
//! that was taken elsewhere is worth nothing.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use ring::hmac;
use schoolgate_config::model::{BackendId, StickyCookie, TenantId};

/// Bytes of a backend's identity.
const ID: usize = 16;
/// Bytes that say until when it is good: seconds since 1970, 0 for the life of the browser.
const UNTIL: usize = 4;
/// Bytes of the signature: HMAC-SHA-256.
const MAC: usize = 32;

/// Writes and reads the cookies of a pool.
#[derive(Debug)]
pub(crate) struct Sticky {
    name: String,
    attributes: String,
    max_age_s: u32,
    key: hmac::Key,
}

impl Sticky {
    /// For a pool whose cookies this key signs.
    pub(crate) fn new(cookie: &StickyCookie, key: hmac::Key) -> Self {
        let mut attributes = format!("; Path=/; Secure; HttpOnly; SameSite={}", cookie.same_site.as_str());
        if cookie.max_age_s > 0 {
            attributes.push_str(&format!("; Max-Age={}", cookie.max_age_s));
        }
        Self { name: cookie.name.as_str().to_owned(), attributes, max_age_s: cookie.max_age_s, key }
    }

    /// The backend that a request's cookie names, if the cookie is ours, for this tenant, and not too old at `now_s`
    /// (seconds since 1970).
    pub(crate) fn read(&self, headers: &HeaderMap, tenant: TenantId, now_s: i64) -> Option<BackendId> {
        let values = headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|b| *b == b';'));
        let mut ours = values.filter_map(|pair| {
            pair.trim_ascii().strip_prefix(self.name.as_bytes()).and_then(|rest| rest.strip_prefix(b"="))
        });
        ours.find_map(|value| self.opened(value, tenant, now_s))
    }

    fn opened(&self, value: &[u8], tenant: TenantId, now_s: i64) -> Option<BackendId> {
        let mut bytes = [0; ID + UNTIL + MAC + 3];
        let length = URL_SAFE_NO_PAD.decode_slice(value, &mut bytes).ok()?;
        let (said, mac) = bytes.get(..length)?.split_at_checked(ID + UNTIL)?;
        hmac::verify(&self.key, &signed(tenant, said), mac).ok()?;
        let (id, until) = said.split_at(ID);
        let until = u32::from_be_bytes(until.try_into().ok()?);
        if until != 0 && i64::from(until) <= now_s {
            return None;
        }
        let bits = u128::from_be_bytes(id.try_into().ok()?);
        Some(BackendId::from_parts((bits >> 80) as u64, bits & ((1 << 80) - 1)))
    }

    /// `Set-Cookie` for a tenant's visitor who was served by a backend at `now_s`.
    pub(crate) fn write(&self, backend: BackendId, tenant: TenantId, now_s: i64) -> Option<HeaderValue> {
        let until = match self.max_age_s {
            0 => 0,
            s => u32::try_from(now_s.saturating_add(s.into())).unwrap_or(u32::MAX),
        };
        let mut bytes = [0; ID + UNTIL + MAC];
        bytes[..ID].copy_from_slice(&backend.bits().to_be_bytes());
        bytes[ID..ID + UNTIL].copy_from_slice(&until.to_be_bytes());
        let mac = hmac::sign(&self.key, &signed(tenant, &bytes[..ID + UNTIL]));
        bytes[ID + UNTIL..].copy_from_slice(mac.as_ref());
        let (name, attributes) = (&self.name, &self.attributes);
        HeaderValue::try_from(format!("{name}={}{attributes}", URL_SAFE_NO_PAD.encode(bytes))).ok()
    }
}

/// What a signature is of.
fn signed(tenant: TenantId, said: &[u8]) -> [u8; 16 + ID + UNTIL] {
    let mut bytes = [0; 16 + ID + UNTIL];
    bytes[..16].copy_from_slice(&tenant.bits().to_be_bytes());
    bytes[16..].copy_from_slice(said);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sticky(key: u8, max_age_s: u32) -> Sticky {
        let cookie = StickyCookie { max_age_s, ..StickyCookie::default() };
        Sticky::new(&cookie, hmac::Key::new(hmac::HMAC_SHA256, &[key; 32]))
    }

    fn tenant(n: u128) -> TenantId {
        TenantId::from_parts(1, n)
    }

    fn written(sticky: &Sticky) -> String {
        let value = sticky.write(BackendId::from_parts(77, 99), tenant(1), 1_000).expect("a value");
        value.to_str().expect("ASCII").to_owned()
    }

    fn sent(cookies: &str) -> HeaderMap {
        [(COOKIE, HeaderValue::try_from(cookies).expect("a value"))].into_iter().collect()
    }

    fn pair(set: &str) -> &str {
        set.split(';').next().expect("a pair")
    }

    #[test]
    fn what_was_written_reads_back_among_other_cookies() {
        let sticky = sticky(1, 0);
        let set = written(&sticky);
        assert!(set.starts_with("__Host-schoolgate=") && set.ends_with("; Path=/; Secure; HttpOnly; SameSite=Lax"));
        let headers = sent(&format!("a=b; {}; __Host-schoolgate2=x", pair(&set)));
        assert_eq!(sticky.read(&headers, tenant(1), 2_000), Some(BackendId::from_parts(77, 99)));
        let mut lines = sent("a=b");
        lines.append(COOKIE, HeaderValue::try_from(pair(&set)).expect("a value"));
        assert!(sticky.read(&lines, tenant(1), 2_000).is_some(), "HTTP/2 may send one field for each");
    }

    #[test]
    fn it_is_good_for_its_tenant_pool_and_time_only() {
        let sticky_of_pool = sticky(1, 60);
        let set = written(&sticky_of_pool);
        assert!(set.ends_with("; Max-Age=60"));
        let headers = sent(pair(&set));
        assert!(sticky_of_pool.read(&headers, tenant(1), 1_059).is_some());
        assert_eq!(sticky_of_pool.read(&headers, tenant(1), 1_060), None, "too old");
        assert_eq!(sticky_of_pool.read(&headers, tenant(2), 1_000), None, "another school's");
        assert_eq!(sticky(2, 60).read(&headers, tenant(1), 1_000), None, "another pool's");
    }

    #[test]
    fn a_changed_cookie_is_as_good_as_none() {
        let sticky = sticky(1, 0);
        let good = written(&sticky);
        let good = pair(&good).to_owned();
        for at in "__Host-schoolgate=".len()..good.len() {
            let mut bad = good.clone().into_bytes();
            bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
            let bad = String::from_utf8(bad).expect("ASCII");
            assert_eq!(sticky.read(&sent(&bad), tenant(1), 0), None, "{bad}");
        }
        for bad in
            ["__Host-schoolgate=", "__Host-schoolgate", "__Host-schoolgate=%%%", &format!("{good}AAAA"), &good[..40]]
        {
            assert_eq!(sticky.read(&sent(bad), tenant(1), 0), None, "{bad}");
        }
        assert_eq!(sticky.read(&sent(&format!("__Host-schoolgate={}", "A".repeat(4_000))), tenant(1), 0), None);
    }
}
