//! Active checks: what is asked of a backend, how often, and what counts as well.

use serde::{Deserialize, Serialize};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// An active check of each backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "HealthCheckForm", into = "HealthCheckForm")]
pub struct HealthCheck {
    /// What is tried.
    pub probe: Probe,
    /// Milliseconds between two checks of one backend.
    pub interval_ms: u64,
    /// Milliseconds a check may take.
    pub timeout_ms: u64,
    /// Good checks in a row that make an unhealthy backend healthy.
    pub healthy_after: u32,
    /// Bad ones in a row that make a healthy backend unhealthy.
    pub unhealthy_after: u32,
}

/// What an active check tries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// `GET path`, answered with a status from the first to the last of `expect`.
    Http {
        /// What is asked for.
        path: String,
        /// Statuses that are good: the first and the last.
        expect: (u16, u16),
        /// Text that stands in the first 64 KiB of the body.
        expect_body: Option<String>,
    },
    /// A connection, and nothing sent over it.
    Tcp,
    /// `grpc.health.v1.Health/Check` of this service, answered with `SERVING`; the empty name is the whole server.
    Grpc {
        /// The service.
        service: String,
    },
}

impl HealthCheck {
    /// Whether anybody listens: what can be asked of a backend of which nothing else is known. Every 2 s, because a
    /// pool that nobody thought about should cost little; one connection that is taken heals.
    pub const fn connects() -> Self {
        Self { probe: Probe::Tcp, interval_ms: 2_000, timeout_ms: 1_000, healthy_after: 1, unhealthy_after: 2 }
    }
}
impl Default for HealthCheck {
    fn default() -> Self {
        HealthCheckForm::default().into()
    }
}
impl PartialSchema for HealthCheck {
    fn schema() -> RefOr<Schema> {
        HealthCheckForm::schema()
    }
}
impl ToSchema for HealthCheck {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        HealthCheckForm::schemas(schemas);
    }
}

/// An active check as it is written: `path`, `expect` and `expect_body` are of the kind `http`, `service` of `grpc`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = HealthCheck)]
pub struct HealthCheckForm {
    /// What is tried: `http` asks for `path`, `tcp` connects, `grpc` asks `grpc.health.v1.Health`.
    pub kind: ProbeKind,
    /// What is asked for; `/healthz` when not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Milliseconds between two checks of one backend.
    pub interval_ms: u64,
    /// Milliseconds a check may take.
    pub timeout_ms: u64,
    /// Good checks in a row that make an unhealthy backend healthy.
    pub healthy_after: u32,
    /// Bad ones in a row that make a healthy backend unhealthy.
    pub unhealthy_after: u32,
    /// Statuses that are good: the first and the last; 200 to 299 when not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect: Option<(u16, u16)>,
    /// Text that must stand in the first 64 KiB of the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect_body: Option<String>,
    /// The gRPC service that is asked about; the whole server when not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

/// The kinds of active check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProbeKind {
    /// Ask for a path.
    #[default]
    Http,
    /// Connect.
    Tcp,
    /// Ask the health service of gRPC.
    Grpc,
}

impl Default for HealthCheckForm {
    fn default() -> Self {
        Self {
            kind: ProbeKind::Http,
            path: None,
            interval_ms: 1_000,
            timeout_ms: 1_000,
            healthy_after: 2,
            unhealthy_after: 2,
            expect: None,
            expect_body: None,
            service: None,
        }
    }
}
impl From<HealthCheckForm> for HealthCheck {
    fn from(form: HealthCheckForm) -> Self {
        let probe = match form.kind {
            ProbeKind::Http => Probe::Http {
                path: form.path.unwrap_or_else(|| "/healthz".to_owned()),
                expect: form.expect.unwrap_or((200, 299)),
                expect_body: form.expect_body,
            },
            ProbeKind::Tcp => Probe::Tcp,
            ProbeKind::Grpc => Probe::Grpc { service: form.service.unwrap_or_default() },
        };
        let HealthCheckForm { interval_ms, timeout_ms, healthy_after, unhealthy_after, .. } = form;
        Self { probe, interval_ms, timeout_ms, healthy_after, unhealthy_after }
    }
}
impl From<HealthCheck> for HealthCheckForm {
    fn from(check: HealthCheck) -> Self {
        let HealthCheck { probe, interval_ms, timeout_ms, healthy_after, unhealthy_after } = check;
        let form = Self { interval_ms, timeout_ms, healthy_after, unhealthy_after, ..Self::default() };
        match probe {
            Probe::Http { path, expect, expect_body } => {
                Self { kind: ProbeKind::Http, path: Some(path), expect: Some(expect), expect_body, ..form }
            }
            Probe::Tcp => Self { kind: ProbeKind::Tcp, ..form },
            Probe::Grpc { service } => {
                let service = Some(service).filter(|service| !service.is_empty());
                Self { kind: ProbeKind::Grpc, service, ..form }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_reads_back_as_written_and_one_without_a_kind_asks_for_a_path() {
        let grpc =
            |service: &str| HealthCheck { probe: Probe::Grpc { service: service.into() }, ..HealthCheck::default() };
        for check in [HealthCheck::default(), HealthCheck::connects(), grpc(""), grpc("school.v1.Grades")] {
            let json = serde_json::to_value(&check).unwrap();
            assert_eq!(serde_json::from_value::<HealthCheck>(json).unwrap(), check);
        }
        // As pools of the first release are stored.
        let old = r#"{"path":"/up","interval_ms":500,"timeout_ms":250,"healthy_after":1,"unhealthy_after":3,"expect":[200,204]}"#;
        let read: HealthCheck = serde_json::from_str(old).unwrap();
        assert_eq!(read.probe, Probe::Http { path: "/up".to_owned(), expect: (200, 204), expect_body: None });
        assert!(serde_json::to_value(HealthCheck::connects()).unwrap().get("path").is_none());
    }
}
