//! Who may do what, in one table.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use schoolgate_config::model::TenantId;

use super::Refusal;

/// What an operator may be, from most to least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    /// Everything.
    SuperAdmin,
    /// Everything but tokens and the key-encryption key.
    Operator,
    /// Sees what it needs to help a school, and sets up its domains.
    Support,
    /// Sees everything, changes nothing.
    Auditor,
    /// Its own tenants: their appearance and domains.
    TenantAdmin,
    /// Sees its own tenants.
    TenantViewer,
}

impl Role {
    /// All of them.
    pub(crate) const ALL: [Self; 6] =
        [Self::SuperAdmin, Self::Operator, Self::Support, Self::Auditor, Self::TenantAdmin, Self::TenantViewer];

    /// The name used in JSON and in the store.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::SuperAdmin => "super-admin",
            Self::Operator => "operator",
            Self::Support => "support",
            Self::Auditor => "auditor",
            Self::TenantAdmin => "tenant-admin",
            Self::TenantViewer => "tenant-viewer",
        }
    }

    /// Whether the role means nothing without a list of tenants.
    pub(crate) const fn is_of_tenants(self) -> bool {
        matches!(self, Self::TenantAdmin | Self::TenantViewer)
    }
}

impl FromStr for Role {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let role = Self::ALL.into_iter().find(|role| role.as_str() == text);
        role.ok_or_else(|| format!("expected one of {}", Self::ALL.map(Self::as_str).join(", ")))
    }
}

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Tenants.
    Tenants,
    /// Domains.
    Domains,
    /// Zones.
    Zones,
    /// Plans.
    Plans,
    /// Pools and their backends.
    Pools,
    /// Routes.
    Routes,
    /// Proxies, and the summary of the whole gateway.
    Nodes,
    /// Published revisions.
    Revisions,
    /// Certificates.
    Certificates,
    /// The keys that sign `X-Tenant-Context`.
    ContextKeys,
    /// The key-encryption key.
    SealingKeys,
    /// The audit.
    Audit,
    /// Tokens.
    Tokens,
    /// Issuers of tokens that name schools.
    TokenIssuers,
    /// What happened that somebody should look at.
    Events,
}

/// Whether a request changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// No.
    Read,
    /// Yes.
    Write,
}

/// What a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Permission(pub(crate) Subject, pub(crate) Access);

impl Subject {
    /// All of them.
    pub(crate) const ALL: [Self; 15] = [
        Self::Tenants,
        Self::Domains,
        Self::Zones,
        Self::Plans,
        Self::Pools,
        Self::Routes,
        Self::Nodes,
        Self::Revisions,
        Self::Certificates,
        Self::ContextKeys,
        Self::SealingKeys,
        Self::Audit,
        Self::Tokens,
        Self::TokenIssuers,
        Self::Events,
    ];

    /// The name used in scopes.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Tenants => "tenants",
            Self::Domains => "domains",
            Self::Zones => "zones",
            Self::Plans => "plans",
            Self::Pools => "pools",
            Self::Routes => "routes",
            Self::Nodes => "nodes",
            Self::Revisions => "revisions",
            Self::Certificates => "certificates",
            Self::ContextKeys => "context-keys",
            Self::SealingKeys => "sealing-keys",
            Self::Audit => "audit",
            Self::Tokens => "tokens",
            Self::TokenIssuers => "token-issuers",
            Self::Events => "events",
        }
    }

    /// To read it.
    pub(crate) const fn read(self) -> Permission {
        Permission(self, Access::Read)
    }

    /// To change it.
    pub(crate) const fn write(self) -> Permission {
        Permission(self, Access::Write)
    }
}

impl Permission {
    /// The name used in a token's scopes, such as `tenants:read`.
    pub(crate) fn scope(self) -> String {
        let access = match self.1 {
            Access::Read => "read",
            Access::Write => "write",
        };
        format!("{}:{access}", self.0.as_str())
    }

    /// The permission with this name.
    pub(crate) fn of_scope(scope: &str) -> Option<Self> {
        Subject::ALL.into_iter().flat_map(|s| [s.read(), s.write()]).find(|p| p.scope() == scope)
    }
}

/// How far a role reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Not at all.
    None,
    /// To the tenants of the token.
    Own,
    /// To everything.
    All,
}

/// The table.
pub(crate) const fn reach(role: Role, Permission(subject, access): Permission) -> Reach {
    use Access::{Read, Write};
    use Subject::{Audit, Domains, Plans, SealingKeys, Tenants, Tokens, Zones};
    match (role, subject, access) {
        (Role::SuperAdmin, _, _) => Reach::All,
        (Role::Operator, Tokens, _) | (Role::Operator, SealingKeys, Write) => Reach::None,
        (Role::Operator, _, _) => Reach::All,
        (Role::Support, Tokens | Audit, _) => Reach::None,
        (Role::Support, _, Read) | (Role::Support, Domains, Write) => Reach::All,
        (Role::Support, _, Write) => Reach::None,
        (Role::Auditor, _, Read) => Reach::All,
        (Role::Auditor, _, Write) => Reach::None,
        (Role::TenantAdmin, Tenants | Domains, _) => Reach::Own,
        (Role::TenantViewer, Tenants | Domains, Read) => Reach::Own,
        // What their own objects refer to, and what they may be called.
        (Role::TenantAdmin | Role::TenantViewer, Plans | Zones, Read) => Reach::All,
        (Role::TenantAdmin | Role::TenantViewer, _, _) => Reach::None,
    }
}

/// The way an operator came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    /// Over the network, with a token.
    Api,
    /// Through the Unix socket.
    Socket,
}

impl Via {
    /// The name used in the audit.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Socket => "socket",
        }
    }
}

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) struct Operator {
    /// The part of their token that is no secret.
    pub(crate) token: String,
    /// What people call it.
    pub(crate) name: String,
    /// Their role.
    pub(crate) role: Role,
    /// What their token is good for, within the role; empty: all.
    pub(crate) scopes: Vec<String>,
    /// Their tenants; empty: all, but for roles of tenants none.
    pub(crate) tenants: Vec<TenantId>,
    /// The way they came.
    pub(crate) via: Via,
    /// The request they ask in.
    pub(crate) request_id: String,
    /// The address they ask from.
    pub(crate) client_ip: Option<IpAddr>,
}

impl Operator {
    /// Somebody who may open the Unix socket: the machine's own administrator.
    pub(crate) fn of_socket(request_id: String) -> Self {
        let name = Via::Socket.as_str();
        Self {
            token: name.to_owned(),
            name: name.to_owned(),
            role: Role::SuperAdmin,
            scopes: Vec::new(),
            tenants: Vec::new(),
            via: Via::Socket,
            request_id,
            client_ip: None,
        }
    }

    /// How far this operator reaches with a permission: the role's reach, narrowed by scopes and tenants of the token.
    pub(crate) fn reach(&self, permission: Permission) -> Reach {
        if !self.scopes.is_empty() && !self.scopes.contains(&permission.scope()) {
            return Reach::None;
        }
        match reach(self.role, permission) {
            // A token for some tenants opens what belongs to them, and lets its holder read what they refer to.
            Reach::All if !self.tenants.is_empty() => match permission {
                Permission(Subject::Tenants | Subject::Domains, _) => Reach::Own,
                Permission(Subject::Plans | Subject::Zones, Access::Read) => Reach::All,
                _ => Reach::None,
            },
            reach => reach,
        }
    }

    /// Whether they may at all; which objects is asked for each.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`].
    pub(crate) fn may(&self, permission: Permission) -> Result<Reach, Refusal> {
        match self.reach(permission) {
            Reach::None => Err(Refusal::Forbidden(format!(
                "this token ({}) has no permission {}",
                self.role.as_str(),
                permission.scope()
            ))),
            reach => Ok(reach),
        }
    }

    /// Whether they may with an object of this tenant.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`].
    pub(crate) fn may_with(&self, permission: Permission, tenant: TenantId) -> Result<(), Refusal> {
        match self.may(permission)? {
            Reach::Own if !self.tenants.contains(&tenant) => {
                Err(Refusal::Forbidden("this token is for other tenants".to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// Whether they may with objects that belong to no tenant.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`].
    pub(crate) fn may_everywhere(&self, permission: Permission) -> Result<(), Refusal> {
        match self.may(permission)? {
            Reach::Own => Err(Refusal::Forbidden(format!(
                "this token has the permission {} for its own tenants only",
                permission.scope()
            ))),
            _ => Ok(()),
        }
    }
}

/// Whether `client` is in one of `networks`; no networks means any client.
pub(crate) fn is_from(networks: &[String], client: Option<IpAddr>) -> bool {
    networks.is_empty()
        || client.is_some_and(|client| {
            let client = client.to_canonical();
            networks.iter().any(|n| n.parse::<IpNet>().is_ok_and(|network| network.contains(&client)))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operator(role: Role, scopes: &[&str], tenants: &[TenantId]) -> Operator {
        Operator {
            token: "t".into(),
            name: "test".into(),
            role,
            scopes: scopes.iter().map(|s| (*s).to_owned()).collect(),
            tenants: tenants.to_vec(),
            via: Via::Api,
            request_id: String::new(),
            client_ip: None,
        }
    }

    #[test]
    fn only_a_super_admin_writes_tokens_and_only_three_roles_see_the_audit() {
        for role in Role::ALL {
            assert_eq!(reach(role, Subject::Tokens.write()) != Reach::None, role == Role::SuperAdmin, "{role:?}");
            let audits = matches!(role, Role::SuperAdmin | Role::Operator | Role::Auditor);
            assert_eq!(reach(role, Subject::Audit.read()) != Reach::None, audits, "{role:?}");
        }
    }

    #[test]
    fn who_only_looks_changes_nothing() {
        for subject in Subject::ALL {
            for role in [Role::Auditor, Role::TenantViewer] {
                assert_eq!(reach(role, subject.write()), Reach::None);
            }
        }
    }

    #[test]
    fn a_role_of_tenants_never_reaches_all_that_is_written() {
        for subject in Subject::ALL {
            assert_ne!(reach(Role::TenantAdmin, subject.write()), Reach::All);
        }
    }

    #[test]
    fn scopes_and_tenants_narrow_and_never_widen() {
        let (mine, other) = (TenantId::from_parts(1, 1), TenantId::from_parts(1, 2));
        let scoped = operator(Role::Operator, &["pools:read"], &[]);
        assert!(scoped.may(Subject::Pools.read()).is_ok());
        assert!(scoped.may(Subject::Pools.write()).is_err());
        assert!(operator(Role::Auditor, &["pools:write"], &[]).may(Subject::Pools.write()).is_err());
        let own = operator(Role::Operator, &[], &[mine]);
        assert!(own.may_with(Subject::Tenants.write(), mine).is_ok());
        assert!(own.may_with(Subject::Tenants.write(), other).is_err());
        assert!(own.may_everywhere(Subject::Tenants.write()).is_err());
        assert!(own.may(Subject::Pools.read()).is_err());
        assert!(operator(Role::TenantAdmin, &[], &[]).may_with(Subject::Tenants.read(), mine).is_err());
    }

    #[test]
    fn every_scope_reads_back() {
        for subject in Subject::ALL {
            assert_eq!(Permission::of_scope(&subject.write().scope()), Some(subject.write()));
        }
        assert_eq!(Permission::of_scope("tenants"), None);
    }

    #[test]
    fn an_address_mapped_into_ipv6_is_the_address() {
        let networks = ["10.0.0.0/8".to_owned()];
        assert!(is_from(&networks, Some("::ffff:10.1.2.3".parse().expect("an address"))));
        assert!(!is_from(&networks, Some("11.1.2.3".parse().expect("an address"))));
        assert!(!is_from(&networks, None));
        assert!(is_from(&[], None));
    }
}
