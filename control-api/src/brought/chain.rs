//! The chain: which certificate is the school's, who issued whom, and whether clients will take it.

use rustls::pki_types::pem::{PemObject, SectionKind};
use schoolgate_config::model::DomainName;
use schoolgate_config::time::rfc3339;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::key::Key;
use super::{Brought, BroughtError, LONGEST_CHAIN};

/// Signatures that clients accept, by their object identifiers: RSA (PKCS #1 and PSS) and ECDSA with SHA-2, Ed25519.
const SIGNATURES: [&str; 8] = [
    "1.2.840.113549.1.1.10",
    "1.2.840.113549.1.1.11",
    "1.2.840.113549.1.1.12",
    "1.2.840.113549.1.1.13",
    "1.2.840.10045.4.3.2",
    "1.2.840.10045.4.3.3",
    "1.2.840.10045.4.3.4",
    "1.3.101.112",
];

/// The certificates of a PEM text, DER, in its order.
pub(super) fn sections(text: &str) -> Result<Vec<Vec<u8>>, BroughtError> {
    let mut certificates = Vec::new();
    if text.contains("PRIVATE KEY-----") {
        return Err(BroughtError::KeyInChain);
    }
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()) {
        if let (SectionKind::Certificate, der) = section.map_err(|_| BroughtError::ChainPem)? {
            certificates.push(der);
        }
    }
    match certificates.len() {
        0 if text.contains("BEGIN CERTIFICATE") => Err(BroughtError::ChainPem),
        0 => Err(BroughtError::NoCertificate),
        n if n > LONGEST_CHAIN => Err(BroughtError::TooMany(n)),
        _ => Ok(certificates),
    }
}

/// A chain as PEM.
pub(crate) fn pem<'a>(chain: impl IntoIterator<Item = &'a [u8]>) -> String {
    use base64::Engine as _;
    let mut text = String::new();
    for der in chain {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = base64::engine::general_purpose::STANDARD.encode(der);
        for line in encoded.as_bytes().chunks(64) {
            text.extend(line.iter().map(|byte| char::from(*byte)));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

/// Puts certificates in order behind the one that `key` belongs to, and checks them.
pub(super) fn check(certificates: &[Vec<u8>], key: Key, now: i64) -> Result<Brought, BroughtError> {
    let mut parsed = Vec::with_capacity(certificates.len());
    for (place, der) in certificates.iter().enumerate() {
        let whole = X509Certificate::from_der(der).ok().filter(|(rest, _)| rest.is_empty());
        parsed.push(whole.ok_or(BroughtError::NotACertificate(place + 1))?.1);
    }
    let leaf = parsed.iter().position(|c| c.public_key().raw == key.public).ok_or(BroughtError::Mismatch)?;
    let mut notices = Vec::new();
    let order = ordered(&parsed, leaf, &mut notices)?;
    for place in &order {
        check_one(&parsed[*place], now)?;
    }
    let leaf = &parsed[leaf];
    if leaf.is_ca() {
        return Err(BroughtError::LeafIsCa);
    }
    let usage = leaf.extended_key_usage().ok().flatten().map(|usage| usage.value);
    if usage.is_some_and(|usage| !usage.server_auth && !usage.any) {
        return Err(BroughtError::NotForServers);
    }
    Ok(Brought {
        names: names(leaf, &mut notices)?,
        not_before: leaf.validity().not_before.timestamp(),
        not_after: leaf.validity().not_after.timestamp(),
        chain: order.iter().map(|place| certificates[*place].clone()).collect(),
        key: key.pkcs8,
        notices,
    })
}

fn subject(certificate: &X509Certificate<'_>) -> String {
    certificate.subject().to_string().chars().take(200).collect()
}

/// From the leaf to the last certificate below the root.
fn ordered(all: &[X509Certificate<'_>], leaf: usize, notices: &mut Vec<String>) -> Result<Vec<usize>, BroughtError> {
    let is_root = |c: &X509Certificate<'_>| c.subject().as_raw() == c.issuer().as_raw();
    let mut order = vec![leaf];
    let mut root = None;
    loop {
        let last = &all[order[order.len() - 1]];
        if is_root(last) {
            break;
        }
        let issued_last = |place: &usize| {
            let other = &all[*place];
            other.subject().as_raw() == last.issuer().as_raw()
                && other.is_ca()
                && last.verify_signature(Some(other.public_key())).is_ok()
        };
        match (0..all.len()).filter(|place| !order.contains(place)).find(issued_last) {
            Some(place) if is_root(&all[place]) => {
                root = Some(place);
                break;
            }
            Some(place) => order.push(place),
            None => break,
        }
    }
    let left = |place: &usize| !order.contains(place) && Some(*place) != root;
    let left: Vec<usize> = (0..all.len()).filter(left).collect();
    let last = &all[order[order.len() - 1]];
    // What is left over may be the issuer of somebody else, but a chain with a hole is not mended by leaving it out.
    if !left.is_empty() && root.is_none() && !is_root(last) && left.iter().any(|place| all[*place].is_ca()) {
        return Err(BroughtError::Broken { subject: subject(last), issuer: last.issuer().to_string() });
    }
    if order.windows(2).any(|pair| pair[0] > pair[1]) {
        notices.push("the certificates came in another order; they are kept leaf first".to_owned());
    }
    for place in left {
        notices.push(format!("`{}` is not part of the chain and was left out", subject(&all[place])));
    }
    if root.is_some() {
        notices.push("the root was left out: clients have their own".to_owned());
    }
    if is_root(&all[leaf]) {
        notices
            .push("the certificate is signed by its own key: only clients that were told to will trust it".to_owned());
    } else if order.len() == 1 && root.is_none() {
        notices.push(format!(
            "there are no intermediate certificates: only clients that know `{}` by themselves will trust it",
            last.issuer()
        ));
    }
    Ok(order)
}

fn check_one(certificate: &X509Certificate<'_>, now: i64) -> Result<(), BroughtError> {
    let validity = certificate.validity();
    let at = |s: i64| rfc3339(s.saturating_mul(1_000));
    if validity.not_after.timestamp() <= now {
        return Err(BroughtError::Expired { subject: subject(certificate), at: at(validity.not_after.timestamp()) });
    }
    if validity.not_before.timestamp() > now {
        return Err(BroughtError::NotYet { subject: subject(certificate), at: at(validity.not_before.timestamp()) });
    }
    let algorithm = certificate.signature_algorithm.algorithm.to_id_string();
    if SIGNATURES.contains(&algorithm.as_str()) {
        return Ok(());
    }
    let algorithm = match algorithm.as_str() {
        "1.2.840.113549.1.1.5" | "1.2.840.10045.4.1" => "SHA-1".to_owned(),
        "1.2.840.113549.1.1.4" => "MD5".to_owned(),
        other => other.to_owned(),
    };
    Err(BroughtError::Signature { subject: subject(certificate), algorithm })
}

/// DNS names (RFC 9525): exact ones, and wildcards of one whole label.
fn names(leaf: &X509Certificate<'_>, notices: &mut Vec<String>) -> Result<Vec<String>, BroughtError> {
    let listed = leaf.subject_alternative_name().ok().flatten();
    let mut names = Vec::new();
    for name in listed.iter().flat_map(|extension| &extension.value.general_names) {
        let GeneralName::DNSName(text) = name else { continue };
        let (star, bare) = text.strip_prefix("*.").map_or(("", *text), |bare| ("*.", bare));
        match DomainName::parse(bare) {
            Ok(name) => names.push(format!("{star}{name}")),
            Err(_) => notices.push(format!("`{}` is no DNS name and was left out", text.escape_default())),
        }
    }
    names.sort_unstable();
    names.dedup();
    if names.is_empty() { Err(BroughtError::NoNames) } else { Ok(names) }
}
