//! Certificates that operators bring, and what becomes of them.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use schoolgate_config::model::Certificate;
use schoolgate_testkit::Api;
use serde_json::{Value, json};

use crate::site::{Site, pointers, problem};

/// A chain of two and its key, PEM.
struct Made {
    leaf: String,
    chain: String,
    key: KeyPair,
}

fn made(names: &[&str]) -> Made {
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::new(Vec::new()).expect("no names");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "a private authority");
    let root = ca.self_signed(&ca_key).expect("a certificate").pem();
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(names).expect("names");
    params.not_after = rcgen::date_time_ymd(2040, 1, 1);
    let leaf = params.signed_by(&key, &Issuer::new(ca, ca_key)).expect("a certificate").pem();
    Made { chain: format!("{root}{leaf}"), leaf, key }
}

impl Made {
    fn body(&self, more: Value) -> Value {
        let mut body = json!({ "chain": self.chain, "key": self.key.serialize_pem() });
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        body
    }

    /// Parts of the key as they could turn up: its PEM's lines, its bytes in hexadecimal. The third line of PKCS#8 on
    /// P-256 is of the public half, which everybody may see.
    fn traces(&self) -> Vec<String> {
        let pem = self.key.serialize_pem();
        let lines = pem.lines().filter(|line| !line.starts_with("-----") && line.len() > 20).map(str::to_owned);
        lines.take(2).chain([hex::encode(&self.key.serialize_der()[36..68])]).collect()
    }
}

async fn domain(api: &Api, name: &str, tenant: &str) {
    api.post("domains", json!({ "name": name, "tenant": tenant })).await.expect(201);
}

/// Two schools with a domain each; names under `test` count as proven.
async fn site() -> Site {
    let (site, _) = Site::with_tenant("greenhill").await;
    site.tenant("riverside").await;
    domain(&site.api, "erp.greenhill.test", "greenhill").await;
    domain(&site.api, "erp.riverside.test", "riverside").await;
    site
}

#[tokio::test]
async fn a_certificate_is_brought_shown_and_taken_away() {
    let site = site().await;
    let made = made(&["erp.greenhill.test", "*.elsewhere.test"]);
    let answer = site.api.post("certificates", made.body(json!({ "tenant": "greenhill" }))).await;
    let location = answer.header("location").expect("a location").to_owned();
    let brought = answer.expect(201);
    assert_eq!((&brought["issuer"], &brought["names"]), (&json!("uploaded"), &json!(["erp.greenhill.test"])));
    assert_eq!((&brought["tenant_slug"], &brought["chain_length"]), (&json!("greenhill"), &json!(1)));
    assert!(brought["notices"].to_string().contains("root was left out"), "{brought}");
    let fingerprint = brought["fingerprint"].as_str().expect("text");
    assert_eq!(location, format!("/api/v1/certificates/{fingerprint}"));

    let path = format!("certificates/{fingerprint}");
    let shown = site.api.get(&path).await.expect(200);
    assert_eq!((&shown["not_after"], &shown["revoked"]), (&json!("2040-01-01T00:00:00.000Z"), &Value::Null));
    let chain = site.api.get(&format!("{path}/chain")).await;
    assert_eq!(chain.header("content-type"), Some("application/pem-certificate-chain"));
    assert_eq!(chain.text.replace('\r', ""), made.leaf.replace('\r', ""));
    let listed = site.api.get("certificates").await.expect(200);
    let row = listed["items"].as_array().expect("a list").iter().find(|row| row["name"] == "erp.greenhill.test");
    assert_eq!(row.expect("there")["uploaded"], fingerprint);
    // What a proxy gets is sealed for this certificate and nothing else.
    let head = site.store.head();
    let held = head.table.certificates().find(|c| c.about.is_uploaded()).expect("there").clone();
    let opened = site.keeper.open_key(Certificate::KEY_PURPOSE, fingerprint, &held.key).expect("opens");
    assert_eq!(opened.as_slice(), made.key.serialize_der());

    problem(site.api.post("certificates", made.body(json!({}))).await, 409, "ALREADY_EXISTS");
    assert_eq!(site.api.delete(&path).await.status, 204);
    problem(site.api.get(&path).await, 404, "NOT_FOUND");
    problem(site.api.get("certificates/nonsense").await, 404, "NOT_FOUND");
}

#[tokio::test]
async fn only_proven_names_of_their_tenant_are_served() {
    let site = site().await;
    site.api.patch("tenants/slug:greenhill", json!({"plan": "custom"})).await.expect(200);
    let wide = made(&["*.greenhill.test", "*.riverside.test", "*.schools.test"]);
    let refused = async |more: Value, code: &str| {
        let refused = problem(site.api.post("certificates", wide.body(more)).await, 422, "VALIDATION_FAILED");
        assert_eq!(refused["errors"][0]["code"], code, "{refused}");
        pointers(&refused)
    };
    assert_eq!(refused(json!({ "tenant": "nobody" }), "not_found").await, ["/tenant"]);
    assert_eq!(refused(json!({ "domains": ["erp.unknown.test"] }), "not_found").await, ["/domains/0"]);
    let other = json!({ "tenant": "greenhill", "domains": ["erp.greenhill.test", "erp.riverside.test"] });
    assert_eq!(refused(other, "other_tenant").await, ["/domains/1"]);
    assert_eq!(refused(json!({ "dommains": [] }), "unknown_field").await, ["/dommains"]);
    site.api.post("domains", json!({ "name": "www.greenhill.example", "tenant": "greenhill" })).await.expect(201);
    assert_eq!(refused(json!({ "domains": ["www.greenhill.example"] }), "not_proven").await, ["/domains/0"]);
    domain(&site.api, "deep.erp.greenhill.test", "greenhill").await;
    assert_eq!(refused(json!({ "domains": ["deep.erp.greenhill.test"] }), "not_covered").await, ["/domains/0"]);
    let stranger = made(&["erp.stranger.test"]);
    let none = problem(site.api.post("certificates", stranger.body(json!({}))).await, 422, "VALIDATION_FAILED");
    assert_eq!((pointers(&none), &none["errors"][0]["code"]), (vec!["/chain".to_owned()], &json!("no_names")));

    // All that is proven here, and the zone; for one tenant its own alone.
    let all = site.api.post("certificates?dry_run=true", wide.body(json!({}))).await.expect(200);
    assert_eq!(all["object"]["names"], json!(["*.schools.test", "erp.greenhill.test", "erp.riverside.test"]));
    let own = site.api.post("certificates", wide.body(json!({ "tenant": "riverside" }))).await.expect(201);
    assert_eq!(own["names"], json!(["erp.riverside.test"]));

    // A name that changes hands takes it along.
    let path = format!("certificates/{}", own["fingerprint"].as_str().expect("text"));
    assert_eq!(site.api.delete("domains/erp.riverside.test").await.status, 204);
    problem(site.api.get(&path).await, 404, "NOT_FOUND");
}

#[tokio::test]
async fn a_revoked_certificate_is_gone_and_remembered() {
    let site = site().await;
    let issuing = site.issuer();
    let brought = made(&["erp.greenhill.test"]);
    let made = site.api.post("certificates", brought.body(json!({}))).await.expect(201);
    let path = format!("certificates/{}", made["fingerprint"].as_str().expect("text"));
    let wrong = problem(
        site.api.post(&format!("{path}/revoke"), json!({ "reason": "boredom" })).await,
        422,
        "VALIDATION_FAILED",
    );
    assert!(wrong["errors"][0]["message"].as_str().expect("text").contains("key_compromise"), "{wrong}");
    problem(site.api.post(&format!("{path}/revoke"), json!({})).await, 422, "VALIDATION_FAILED");

    let revoked = site.api.post(&format!("{path}/revoke"), json!({ "reason": "key_compromise" })).await.expect(200);
    assert_eq!(revoked["revoked"]["reason"], "key_compromise");
    let shown = site.api.get(&path).await.expect(200);
    assert_eq!((&shown["revoked"]["told"], &shown["names"]), (&json!(false), &json!(["erp.greenhill.test"])));
    problem(site.api.get(&format!("{path}/chain")).await, 404, "NOT_FOUND");
    problem(site.api.post("certificates", brought.body(json!({}))).await, 409, "CERTIFICATE_REVOKED");
    problem(site.api.post(&format!("{path}/revoke"), json!({ "reason": "superseded" })).await, 404, "NOT_FOUND");

    // One that was issued here is not deleted; revoked, it is replaced.
    let listed = site.api.get("certificates").await.expect(200);
    let rows = listed["items"].as_array().expect("a list");
    let row = rows.iter().find(|row| row["state"] == "issued");
    if let Some(fingerprint) = row.and_then(|row| row["fingerprint"].as_str()) {
        let path = format!("certificates/{fingerprint}");
        problem(site.api.delete(&path).await, 409, "NOT_UPLOADED");
    }
    issuing.abort();
}

#[tokio::test]
async fn a_private_key_never_leaves() {
    let site = site().await;
    let own = made(&["erp.greenhill.test"]);
    let other = made(&["erp.greenhill.test"]);
    let mut said = Vec::new();
    let mut body = own.body(json!({}));
    body["key"] = json!(other.key.serialize_pem());
    said.push(site.api.post("certificates", body).await.text);
    let mut body = own.body(json!({}));
    body["chain"] = json!(format!("{}{}", own.chain, own.key.serialize_pem()));
    said.push(site.api.post("certificates", body).await.text);
    let mut body = own.body(json!({}));
    body["key"] = json!([own.key.serialize_pem()]);
    said.push(site.api.post("certificates", body).await.text);
    said.push(site.api.post("certificates?dry_run=true", own.body(json!({}))).await.text);
    let made = site.api.post("certificates", own.body(json!({}))).await;
    said.push(made.text.clone());
    let path = format!("certificates/{}", made.expect(201)["fingerprint"].as_str().expect("text"));
    let reads =
        [path.as_str(), "certificates", "audit", "events", "domains/erp.greenhill.test", "revisions/1", "status"];
    for read in reads {
        said.push(site.api.get(read).await.text);
    }
    said.push(site.api.get(&format!("{path}/chain")).await.text);
    said.push(site.api.post(&format!("{path}/revoke"), json!({ "reason": "superseded" })).await.text);
    let head = site.store.head();
    said.push(format!("{:?}", head.table.certificates().collect::<Vec<_>>()));
    said.push(format!("{:?}", site.store.audit(&Default::default()).await.expect("reads")));
    let files = ["control.db", "control.db-wal"].map(|name| std::fs::read(site.data.join(name)).unwrap_or_default());
    for made in [&own, &other] {
        for trace in made.traces() {
            for text in &said {
                assert!(!text.contains(&trace), "{trace} in {text}");
            }
            let bytes = trace.as_bytes();
            assert!(
                files.iter().all(|file| !file.windows(bytes.len()).any(|window| window == bytes)),
                "{trace} on disk"
            );
        }
        let secret = &made.key.serialize_der()[36..68];
        assert!(files.iter().all(|file| !file.windows(32).any(|window| window == secret)), "bytes on disk");
    }
}

#[tokio::test]
async fn who_may_not_write_certificates_is_refused() {
    let site = site().await;
    let body = made(&["erp.greenhill.test"]).body(json!({}));
    for role in ["support", "auditor"] {
        let api = site.api_of(json!({ "name": role, "role": role })).await;
        problem(api.post("certificates", body.clone()).await, 403, "FORBIDDEN");
    }
    let greenhill = site.api.get("tenants/slug:greenhill").await.expect(200)["id"].clone();
    let api = site.api_of(json!({ "name": "school", "role": "tenant-admin", "tenants": [greenhill] })).await;
    problem(api.post("certificates", body).await, 403, "FORBIDDEN");
}
