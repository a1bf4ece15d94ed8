//! Mistakes by name: what should be, what is, who must do what.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::observation::Server;

/// What a finding keeps from being so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    /// That the name is the tenant's.
    Ownership,
    /// That it points here.
    Routing,
    /// That it has a certificate.
    Certificate,
}

/// Who must act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhoActs {
    /// Whoever manages the school's DNS.
    School,
    /// Whoever runs the gateway.
    Operator,
    /// Nobody: it mends itself.
    Nobody,
}

/// What is wrong, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// The TXT record is not there.
    OwnershipUnproven,
    /// The TXT record was there, and has gone.
    ProofMissing,
    /// The TXT record stands at a name with the zone in it twice.
    TxtZoneAppended,
    /// The TXT record stands at the name itself.
    TxtAtWrongName,
    /// The TXT record is another tenant's, or of an earlier claim.
    TxtOtherClaim,
    /// The TXT record is ours but for quotes, case or spaces.
    TxtMalformed,
    /// The name does not point here.
    NotPointingHere,
    /// The CNAME stands at a name with the zone in it twice.
    CnameZoneAppended,
    /// The CNAME leads to our name with the school's zone behind it: a final dot is missing.
    CnameTargetZoneAppended,
    /// The CNAME leads to another domain's name of ours.
    CnameOtherDomain,
    /// There is a CNAME where the zone begins.
    CnameAtApex,
    /// CNAMEs lead in a circle.
    CnameLoop,
    /// IPv4 points here and IPv6 elsewhere.
    StaleAaaa,
    /// Some addresses are ours and some are not.
    ExtraAddress,
    /// A proxy or CDN stands in front.
    ProxyInFront,
    /// The CNAME is right, and our own name behind it does not resolve.
    TargetUnresolved,
    /// It is right at its source, and resolvers still have the old answer.
    TtlRunning,
    /// Servers that should say the same do not.
    SplitAnswers,
    /// Name servers fail.
    ServerFailure,
    /// DNSSEC signatures do not hold.
    DnssecBogus,
    /// The domain is not registered, or has expired.
    DomainNotRegistered,
    /// No server answers.
    NoAnswer,
    /// CAA records forbid our CA.
    CaaForbids,
    /// CAA records cannot be read, and a CA must refuse then (RFC 8659 section 3).
    CaaUnreadable,
    /// Nothing answers at port 80 of an address that the name has.
    HttpUnreachable,
    /// Something before this gateway sends who looks for a challenge elsewhere.
    HttpRedirected,
    /// Something else than this gateway answers at port 80.
    ForeignServer,
}

/// What an order would fail for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hinders {
    /// For nothing: it mends itself, or is no evidence of what a certificate authority would see.
    Nothing,
    /// For looking at this gateway (HTTP-01, TLS-ALPN-01). A TXT record would still do.
    Looking,
    /// For whatever way of proving the name.
    Everything,
}

impl Code {
    /// What an order would fail for while this is so.
    ///
    /// Only what is known for sure counts. Servers that fail, and a port that we cannot reach (not every gateway reaches
    /// itself through the address translation before it), prove nothing about what the authority would see: to hold
    /// orders for them could keep a name without a certificate for ever, and a failed order is counted and rests.
    pub const fn hinders(self) -> Hinders {
        match self {
            Self::CaaForbids | Self::CaaUnreadable | Self::DnssecBogus | Self::DomainNotRegistered => {
                Hinders::Everything
            }
            Self::NotPointingHere
            | Self::CnameZoneAppended
            | Self::CnameTargetZoneAppended
            | Self::CnameOtherDomain
            | Self::CnameLoop
            | Self::StaleAaaa
            | Self::ExtraAddress
            | Self::ProxyInFront
            | Self::TargetUnresolved
            | Self::SplitAnswers
            | Self::ForeignServer => Hinders::Looking,
            Self::OwnershipUnproven
            | Self::ProofMissing
            | Self::TxtZoneAppended
            | Self::TxtAtWrongName
            | Self::TxtOtherClaim
            | Self::TxtMalformed
            | Self::CnameAtApex
            | Self::TtlRunning
            | Self::ServerFailure
            | Self::NoAnswer
            | Self::HttpUnreachable
            | Self::HttpRedirected => Hinders::Nothing,
        }
    }
}

/// Why an order would fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hindrance {
    /// At which certificate authority, by its name in the settings; `None`: at any.
    pub ca: Option<String>,
    /// For what.
    pub hinders: Hinders,
    /// What is wrong.
    pub code: Code,
    /// Who must act.
    pub who_acts: WhoActs,
    /// What to do.
    pub fix: String,
}

impl Hindrance {
    pub(crate) fn of(finding: &Finding) -> Option<Self> {
        let hinders = finding.code.hinders();
        // What keeps a name from being proven to us does not keep a certificate authority from looking.
        let concerns = match hinders {
            Hinders::Nothing => false,
            Hinders::Looking => finding.axis != Axis::Ownership,
            Hinders::Everything => true,
        };
        concerns.then(|| Self {
            ca: None,
            hinders,
            code: finding.code,
            who_acts: finding.who_acts,
            fix: finding.fix.clone(),
        })
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// What.
    pub code: Code,
    /// What it keeps from being so.
    pub axis: Axis,
    /// What should be.
    pub expected: String,
    /// What is; `null` for nothing.
    pub found: Option<String>,
    /// Who said so.
    pub resolver: Option<String>,
    /// Who must act.
    pub who_acts: WhoActs,
    /// What to do.
    pub fix: String,
}

impl Finding {
    pub(crate) fn new(code: Code, axis: Axis, expected: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            code,
            axis,
            expected: expected.into(),
            found: None,
            resolver: None,
            who_acts: WhoActs::School,
            fix: fix.into(),
        }
    }

    #[must_use]
    pub(crate) fn found(self, found: impl Into<String>) -> Self {
        /// Characters of what strangers wrote into their DNS that are shown: 300, more than any record of ours.
        const SHOWN: usize = 300;
        let found: String = found.into();
        Self { found: Some(found.chars().filter(|c| !c.is_control()).take(SHOWN).collect()), ..self }
    }

    #[must_use]
    pub(crate) fn said_by(self, server: &Server) -> Self {
        Self { resolver: Some(server.to_string()), ..self }
    }

    #[must_use]
    pub(crate) fn acts(self, who_acts: WhoActs) -> Self {
        Self { who_acts, ..self }
    }
}
