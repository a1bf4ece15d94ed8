use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, date_time_ymd,
};

use super::*;

/// A moment within the validity of everything made here: 2030.
const NOW: i64 = 1_900_000_000;

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

fn params(name: &str, dns: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::new(dns.iter().map(ToString::to_string).collect::<Vec<_>>()).expect("names");
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2040, 1, 1));
    params
}

fn authority(name: &str, by: Option<&Authority>) -> Authority {
    let key = KeyPair::generate().expect("a key");
    let mut params = params(name, &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let made = match by {
        Some(by) => params.signed_by(&key, &by.issuer),
        None => params.self_signed(&key),
    };
    let pem = made.expect("a certificate").pem();
    Authority { issuer: Issuer::new(params, key), pem }
}

/// Root, intermediate, and a leaf with its key: `change` makes the leaf what a test needs.
struct World {
    root: Authority,
    middle: Authority,
    leaf: String,
    key: String,
}

fn world(change: impl FnOnce(&mut CertificateParams)) -> World {
    let root = authority("a root", None);
    let middle = authority("an intermediate", Some(&root));
    let key = KeyPair::generate().expect("a key");
    let mut params = params("the school", &["erp.greenhill.example", "*.greenhill.example"]);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    change(&mut params);
    let leaf = params.signed_by(&key, &middle.issuer).expect("a certificate").pem();
    World { root, middle, leaf, key: key.serialize_pem() }
}

fn read(chain: &[&str], key: &str) -> Result<Brought, BroughtError> {
    Brought::read(&chain.concat(), key, NOW)
}

fn ders(pems: &[&str]) -> Vec<Vec<u8>> {
    chain::sections(&pems.concat()).expect("PEM")
}

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("fixtures/", $name))
    };
}

#[test]
fn a_whole_chain_is_kept_without_its_root_and_any_order_is_mended() {
    let World { root, middle, leaf, key } = world(|_| ());
    let good = read(&[&leaf, &middle.pem], &key).expect("good");
    assert_eq!(good.chain, ders(&[&leaf, &middle.pem]));
    assert_eq!(good.names, ["*.greenhill.example", "erp.greenhill.example"]);
    assert!(good.notices.is_empty(), "{:?}", good.notices);
    assert_eq!((good.not_before, good.not_after), (1_577_836_800, 2_208_988_800));

    let stranger = authority("somebody else", None);
    let mixed = read(&[&root.pem, &stranger.pem, &middle.pem, &leaf], &key).expect("mended");
    assert_eq!(mixed.chain, good.chain);
    assert_eq!(mixed.notices.len(), 3, "{:?}", mixed.notices);
    assert!(mixed.notices.iter().any(|notice| notice.contains("another order")), "{:?}", mixed.notices);
    assert!(mixed.notices.iter().any(|notice| notice.contains("somebody else")), "{:?}", mixed.notices);
    // Windows line ends, and words around the sections, as mail programs leave them.
    let windows = format!("Here it is:\n{leaf}\nand\n{}", middle.pem).replace('\n', "\r\n");
    assert_eq!(read(&[&windows], &key).expect("good").chain, good.chain);
}

#[test]
fn a_chain_with_a_hole_is_refused_and_one_without_intermediates_is_taken_with_a_notice() {
    let World { middle, leaf, key, .. } = world(|_| ());
    let other = authority("another intermediate", None);
    let namesake = authority("an intermediate", None);
    for wrong in [&other, &namesake] {
        let broken = read(&[&leaf, &wrong.pem], &key).expect_err("does not lead anywhere");
        assert!(
            matches!(&broken, BroughtError::Broken { issuer, .. } if issuer.contains("an intermediate")),
            "{broken}"
        );
    }
    let alone = read(&[&leaf], &key).expect("a private authority may sign so");
    assert!(alone.notices[0].contains("no intermediate"), "{:?}", alone.notices);
    drop(middle);
}

#[test]
fn every_mistake_has_its_own_words() {
    let good = world(|_| ());
    let other = world(|_| ());
    let chain = format!("{}{}", good.leaf, good.middle.pem);
    let encrypted = fixture!("encrypted.key");
    let broken = good.leaf.replace("-----END CERTIFICATE-----", "");
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let cases: [(&str, &str, BroughtError); 13] = [
        ("", &good.key, BroughtError::NoCertificate),
        ("hello", &good.key, BroughtError::NoCertificate),
        (&broken, &good.key, BroughtError::ChainPem),
        (garbage, &good.key, BroughtError::NotACertificate(1)),
        (&good.leaf.repeat(11), &good.key, BroughtError::TooMany(11)),
        (&format!("{chain}{}", good.key), &good.key, BroughtError::KeyInChain),
        (&chain, "", BroughtError::NoKey),
        (&chain, &chain, BroughtError::NoKey),
        (&chain, &format!("{}{}", good.key, other.key), BroughtError::SeveralKeys),
        (&chain, encrypted, BroughtError::EncryptedKey),
        (&chain, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", BroughtError::Key),
        (&chain, &other.key, BroughtError::Mismatch),
        (fixture!("rsa-1024.pem"), fixture!("rsa-1024.key"), BroughtError::Key),
    ];
    for (chain, key, expected) in cases {
        let found = Brought::read(chain, key, NOW).expect_err("a mistake");
        assert_eq!(found, expected);
        let (pointer, code) = found.place();
        assert!(pointer.starts_with('/') && !code.is_empty() && !found.to_string().contains("-----\n"));
    }
    let ca = world(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    assert_eq!(read(&[&ca.leaf, &ca.middle.pem], &ca.key).expect_err("a mistake"), BroughtError::LeafIsCa);
    let client = world(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    assert_eq!(read(&[&client.leaf], &client.key).expect_err("a mistake"), BroughtError::NotForServers);
    let nameless = world(|params| params.subject_alt_names.clear());
    assert_eq!(read(&[&nameless.leaf], &nameless.key).expect_err("a mistake"), BroughtError::NoNames);
    let over = world(|params| params.not_after = date_time_ymd(2029, 1, 1));
    let found = read(&[&over.leaf], &over.key).expect_err("a mistake");
    assert!(found.to_string().contains("expired on 2029-01-01"), "{found}");
    let early = world(|params| params.not_before = date_time_ymd(2031, 1, 1));
    let found = read(&[&early.leaf], &early.key).expect_err("a mistake");
    assert!(found.to_string().contains("not valid before 2031-01-01"), "{found}");
    let found = Brought::read(fixture!("sha1.pem"), fixture!("rsa-2048.key"), NOW).expect_err("a mistake");
    assert!(matches!(&found, BroughtError::Signature { algorithm, .. } if algorithm == "SHA-1"), "{found}");
    let found = Brought::read(fixture!("p521-sec1.pem"), fixture!("p521-sec1.key"), NOW);
    assert_eq!(found.map(|brought| brought.names).expect_err("a mistake"), BroughtError::Key);
}

#[test]
fn every_usual_form_of_key_becomes_pkcs_8_and_fits() {
    for (chain, key) in [
        (fixture!("rsa-2048.pem"), fixture!("rsa-2048.key")),
        (fixture!("p256-sec1.pem"), fixture!("p256-sec1.key")),
        (fixture!("p384-sec1.pem"), fixture!("p384-sec1.key")),
        (fixture!("ed25519.pem"), fixture!("ed25519.key")),
    ] {
        let brought = Brought::read(chain, key, NOW).expect("good");
        assert_eq!(brought.names, ["erp.greenhill.example"]);
        assert!(brought.notices[0].contains("signed by its own key"), "{:?}", brought.notices);
        assert!(!format!("{brought:?}").contains(&format!("{:?}", &brought.key[..8])));
    }
}

#[test]
fn a_chain_comes_back_as_it_was() {
    let World { middle, leaf, .. } = world(|_| ());
    let chain = ders(&[&leaf, &middle.pem]);
    assert_eq!(ders(&[&pem(chain.iter().map(Vec::as_slice))]), chain);
}
