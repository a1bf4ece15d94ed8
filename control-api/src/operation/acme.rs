//! Certificates on demand.

use serde_json::json;

use schoolgate_config::model::{DomainName, Fingerprint};

use super::permission::Subject;
use super::{Done, Refusal, What, Work};

/// Has the certificate of a domain ordered now, whatever it waits for; the CA's limits still count.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Forbidden`], [`Refusal::Conflict`].
pub(crate) async fn retry(work: &mut Work, name: &DomainName) -> Result<Done, Refusal> {
    let domain = work.transaction.table().domain(name.as_str()).map(|domain| domain.tenant);
    let tenant = domain.ok_or_else(|| Refusal::not_found("domain"))?;
    work.operator.may_with(Subject::Domains.write(), tenant)?;
    now(work, name.as_str(), "retry", format!("domains/{name}")).await
}

/// Renews a certificate before its time.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Forbidden`], [`Refusal::Conflict`].
pub(crate) async fn renew(work: &mut Work, fingerprint: &Fingerprint) -> Result<Done, Refusal> {
    let certificate = work.transaction.table().certificate(fingerprint).cloned();
    let certificate = certificate.ok_or_else(|| Refusal::not_found("certificate"))?;
    work.operator.may_everywhere(Subject::Certificates.write())?;
    let name = certificate.about.names.first().cloned().unwrap_or_default();
    if certificate.about.issuer == "uploaded" {
        return Err(Refusal::Conflict {
            code: "CERTIFICATE_UPLOADED",
            message: "an uploaded certificate cannot be renewed from here: upload its successor".to_owned(),
            pointer: None,
        });
    }
    now(work, &name, "renew", format!("certificates/{fingerprint}")).await
}

async fn now(work: &mut Work, name: &str, verb: &str, path: String) -> Result<Done, Refusal> {
    if !work.transaction.retry_certificate(name).await? {
        return Err(Refusal::Conflict {
            code: "CERTIFICATE_NOT_WANTED",
            message: format!(
                "no certificate is ordered for {name}: prove its ownership first (`schoolgate domain get {name}`)"
            ),
            pointer: None,
        });
    }
    Ok(Done {
        what: What::Changed,
        object: json!({ "name": name, "queued": true }),
        version: None,
        path,
        action: format!("certificate.{verb}"),
        about: format!("certificate {name}"),
        summary: json!({ "name": name }),
        names: vec![name.to_owned()],
        again: None,
    })
}
