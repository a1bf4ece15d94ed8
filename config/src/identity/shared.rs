//! The shared host of a zone: who may say which tenant, and that everything said agrees. With tokens as they come.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schoolgate_testkit::TokenSigner;
use serde_json::{Value, json};

use super::tests::{Asked, pool, tenant, zone};
use super::*;
use crate::model::{Plan, Revision, TenantState, TokenIssuer, Zone};
use crate::snapshot::{Object, Snapshot};

const NOW: i64 = 1_800_000_000;
/// A good token of `idp`, with some claims changed (`null` takes one out).
fn signed(signer: &TokenSigner, change: Value) -> String {
    signer.token("k", &claims(change))
}

fn claims(change: Value) -> Value {
    let mut claims =
        json!({"iss": "https://id.example", "aud": "school", "iat": NOW, "exp": NOW + 300, "tenantId": "ash"});
    for (name, value) in change.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    claims.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
    claims
}

fn issuer(id: &str, keys: Value, change: Value) -> Object {
    let mut value = json!({
        "id": id, "issuer": "https://id.example", "audiences": ["school", "other"], "source": "inline",
        "keys": {"keys": keys},
    });
    value.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
    Object::from(serde_json::from_value::<TokenIssuer>(value).expect("an issuer"))
}

fn table_with(change: impl FnOnce(&mut Zone), more: Vec<Object>) -> RoutingTable {
    let mut zone = zone("schools.example");
    zone.trusted_callers = vec!["10.0.0.0/8".parse().expect("a network")];
    change(&mut zone);
    let mut objects: Vec<Object> = Plan::catalogue().into_iter().map(Object::from).collect();
    objects.extend([pool("shared").into(), zone.into(), super::tests::zone("other.example").into()]);
    objects.extend(
        [
            ("ash", TenantState::Active),
            ("birch", TenantState::Active),
            ("gone", TenantState::Archived),
            ("late", TenantState::Suspended),
        ]
        .map(|(slug, state)| Object::from(tenant(slug, state))),
    );
    objects.extend(more);
    RoutingTable::from_snapshot(&Snapshot { revision: Revision(1), objects }, &crate::table::NoLive, None)
        .expect("holds together")
}

fn table() -> RoutingTable {
    table_with(|_| {}, Vec::new())
}

fn id_of(table: &RoutingTable, slug: &str) -> String {
    table.tenant_by_slug(slug).expect("there").tenant.id.to_string()
}

fn stranger() -> Asked {
    Asked::of("api.schools.example")
}

fn trusted() -> Asked {
    Asked { client: [10, 1, 2, 3].into(), ..stranger() }
}

fn all(values: &[&str]) -> Vec<String> {
    values.iter().map(|v| (*v).to_owned()).collect()
}

#[test]
fn a_trusted_caller_selects_by_header_then_slug_then_query() {
    let table = table();
    let id = id_of(&table, "ash");
    assert_eq!(Asked { ids: all(&["ash"]), ..trusted() }.ask(&table), "ash");
    assert_eq!(Asked { ids: vec![id.clone()], ..trusted() }.ask(&table), "ash");
    assert_eq!(Asked { slugs: all(&["birch"]), ..trusted() }.ask(&table), "birch");
    assert_eq!(Asked { query: Some(format!("x=1&tenantId={id}")), ..trusted() }.ask(&table), "ash");
    let everything =
        Asked { ids: vec![id.clone()], slugs: all(&["ash"]), query: Some("tenant=ash".into()), ..trusted() };
    assert_eq!(everything.ask(&table), "ash");
    assert_eq!(Asked { slugs: vec![id], ..trusted() }.ask(&table), "NotActive", "a slug is no id");
}

#[test]
fn a_stranger_selects_nobody_by_header_or_query() {
    let table = table();
    for asked in [
        stranger(),
        Asked { ids: all(&["ash"]), ..stranger() },
        Asked { slugs: all(&["ash"]), ..stranger() },
        Asked { query: Some("tenant=ash".into()), ..stranger() },
        Asked { ids: all(&["nosuch"]), ..stranger() },
        Asked { ids: all(&[""]), ..trusted() },
        Asked { path: "/t/ash/x".into(), ..stranger() },
    ] {
        assert_eq!(asked.ask(&table), "NoIdentifier", "{asked:?}");
    }
}

#[test]
fn what_selects_must_name_a_tenant_that_is_served() {
    let table = table();
    for dead in ["nosuch", "gone", "tnt_evil", "ASH", "ash,birch", "ash birch", "tnt_01ARZ3NDEKTSV4RRFFQ69G5FAV"] {
        assert_eq!(Asked { ids: all(&[dead]), ..trusted() }.ask(&table), "NotActive", "{dead}");
    }
    assert_eq!(Asked { ids: all(&["late"]), ..trusted() }.ask(&table), "Suspended(late)");
}

#[test]
fn every_identifier_must_agree_on_a_shared_host() {
    let table = table();
    for (asked, refusal) in [
        (Asked { ids: all(&["ash", "birch"]), ..trusted() }, "Mismatch(ash, header birch)"),
        (Asked { ids: all(&["ash", "nosuch"]), ..trusted() }, "Mismatch(ash, header nosuch)"),
        (Asked { ids: all(&["nosuch", "ash"]), ..trusted() }, "Mismatch(nobody, header nosuch)"),
        (Asked { ids: all(&["ash"]), slugs: all(&["birch"]), ..trusted() }, "Mismatch(ash, slug_header birch)"),
        (
            Asked { ids: all(&["ash"]), query: Some("tenant=ash&tenantId=birch".into()), ..trusted() },
            "Mismatch(ash, query birch)",
        ),
    ] {
        assert_eq!(asked.ask(&table), refusal);
    }
    assert_eq!(Asked { ids: all(&["ash", "ash"]), ..trusted() }.ask(&table), "ash");
}

#[test]
fn every_identifier_must_agree_on_a_tenants_own_host() {
    let table = table();
    let own = || Asked::of("ash.schools.example");
    let id = id_of(&table, "ash");
    assert_eq!(
        Asked { ids: vec![id], slugs: all(&["ash"]), query: Some("tenant=ash".into()), ..own() }.ask(&table),
        "ash"
    );
    for (asked, refusal) in [
        (Asked { ids: all(&["birch"]), ..own() }, "Mismatch(ash, header birch)"),
        (Asked { ids: all(&["birch"]), client: [10, 0, 0, 1].into(), ..own() }, "Mismatch(ash, header birch)"),
        (Asked { ids: all(&["nosuch"]), ..own() }, "Mismatch(ash, header nosuch)"),
        (Asked { slugs: all(&["ash\u{1b}[31m"]), ..own() }, "Mismatch(ash, slug_header ash\u{fffd}[31m)"),
        (Asked { query: Some("%74enant=birch".into()), ..own() }, "Mismatch(ash, query birch)"),
    ] {
        assert_eq!(asked.ask(&table), refusal);
    }
    assert_eq!(Asked { path: "/t/birch/x".into(), ..own() }.ask(&table), "ash", "a path is the school's own");
    assert_eq!(Asked { query: Some("tenant=".into()), ..own() }.ask(&table), "ash", "an empty value names nobody");
}

#[test]
fn a_path_selects_where_the_zone_says_so_and_is_cut_off() {
    let table = table_with(|zone| zone.path_prefix = true, Vec::new());
    let asked = Asked { path: "/t/ash/grades".into(), ..stranger() };
    let facts = asked.facts();
    let selected = decide(&table, &facts).expect("selected");
    assert_eq!(
        (selected.prefix, selected.path, selected.via),
        (Some("/t/ash"), "/grades", Via::Shared(Identifier::Path))
    );
    for (path, refusal) in [
        ("/grades", "NoIdentifier"),
        ("/t/nosuch/x", "NotActive"),
        ("/t/gone/x", "NotActive"),
        ("/t/%61sh/x", "NotActive"),
        ("/t/ash//evil.example/", "BadPath"),
    ] {
        assert_eq!(Asked { path: path.into(), ..stranger() }.ask(&table), refusal, "{path}");
    }
    let by_id = format!("/t/{}/x", id_of(&table, "ash"));
    assert_eq!(Asked { path: by_id, ..stranger() }.ask(&table), "NotActive", "ids are not for addresses");
    // A header that could not select still has to agree.
    let other = Asked { ids: all(&["birch"]), path: "/t/ash/x".into(), ..stranger() };
    assert_eq!(other.ask(&table), "Mismatch(ash, header birch)");
    let header_first = Asked { ids: all(&["birch"]), path: "/t/ash/x".into(), ..trusted() };
    assert_eq!(header_first.ask(&table), "Mismatch(birch, path ash)");
}

#[test]
fn a_handshake_for_a_school_does_not_serve_another_on_the_shared_host() {
    let table = table();
    let with = |sni: &str, slug: &str| Asked { sni: Some(sni.into()), ids: all(&[slug]), ..trusted() }.ask(&table);
    assert_eq!(with("api.schools.example", "ash"), "ash");
    assert_eq!(with("ash.schools.example", "ash"), "ash");
    assert_eq!(with("birch.schools.example", "ash"), "Misdirected");
    assert_eq!(with("api.other.example", "ash"), "Misdirected");
}

/// Asks with a token on some host.
fn with_token(table: &RoutingTable, host: &str, token: &str) -> String {
    let bearer = Bearer::of(table, format!("Bearer {token}").as_bytes(), NOW);
    Asked { bearer, ..Asked::of(host) }.ask(table)
}

#[test]
fn a_token_of_each_algorithm_selects_its_tenant() {
    for signer in TokenSigner::each() {
        let table = table_with(|_| {}, vec![issuer("idp", json!([signer.jwk("k")]), json!({}))]);
        let ask = |change| with_token(&table, "api.schools.example", &signed(&signer, change));
        assert_eq!(ask(json!({})), "ash", "{}", signer.alg());
        assert_eq!(ask(json!({"tenantId": null, "tenant_id": id_of(&table, "birch")})), "birch");
        assert_eq!(ask(json!({"aud": ["elsewhere", "other"]})), "ash");
        assert_eq!(ask(json!({"tenant_id": "birch"})), "Mismatch(ash, token birch)", "both claims count");
        assert_eq!(ask(json!({"tenantId": null})), "NoIdentifier");
        for dead in [json!("gone"), json!("nosuch"), json!(7), json!(["ash"]), json!("ash ")] {
            assert_eq!(ask(json!({"tenantId": dead})), "TokenNotActive", "{dead}");
        }
        assert_eq!(ask(json!({"tenantId": "late"})), "Suspended(late)");
    }
}

#[test]
fn a_token_that_is_not_good_is_refused_whatever_else_selects() {
    use TokenError as E;
    let (signer, other) = (TokenSigner::ed25519(), TokenSigner::ed25519());
    let table =
        table_with(|_| {}, vec![issuer("idp", json!([signer.jwk("k")]), json!({"algorithms": ["EdDSA", "RS256"]}))]);
    let kid = |kid: Value| signer.sign(&json!({"alg": "EdDSA", "kid": kid}), &claims(json!({})));
    let alg = |alg: &str| signer.sign(&json!({"alg": alg, "kid": "k"}), &claims(json!({})));
    let good = signed(&signer, json!({}));
    let (head, signature) = good.rsplit_once('.').expect("three parts");
    let payload = |change| URL_SAFE_NO_PAD.encode(claims(change).to_string());
    let forged =
        format!("{}.{}.{signature}", head.split('.').next().expect("a header"), payload(json!({"tenantId": "birch"})));
    for (token, error) in [
        (signed(&other, json!({})), E::Signature),
        (forged, E::Signature),
        (format!("{head}."), E::Signature),
        (kid(json!("unknown")), E::Key),
        (alg("none"), E::Algorithm),
        (alg("HS256"), E::Algorithm),
        (alg("ES256"), E::Algorithm),
        (alg("eddsa"), E::Algorithm),
        (alg("RS256"), E::Key),
        (
            signer.sign(&json!({"alg": "EdDSA", "kid": "k", "crit": ["b64"], "b64": false}), &claims(json!({}))),
            E::Critical,
        ),
        (signed(&signer, json!({"exp": null})), E::NoExpiry),
        (signed(&signer, json!({"exp": NOW - 60})), E::Expired),
        (signed(&signer, json!({"exp": "soon"})), E::Format),
        (signed(&signer, json!({"nbf": NOW + 61})), E::NotYet),
        (signed(&signer, json!({"iat": NOW + 61})), E::NotYet),
        (signed(&signer, json!({"aud": "elsewhere"})), E::Audience),
        (signed(&signer, json!({"aud": null})), E::Audience),
        (signed(&signer, json!({"aud": ["elsewhere", 7]})), E::Audience),
    ] {
        let bearer = Bearer::of(&table, format!("Bearer {token}").as_bytes(), NOW);
        for host in ["api.schools.example", "ash.schools.example", "birch.schools.example"] {
            let asked = Asked { bearer: bearer.clone(), ..Asked::of(host) };
            assert_eq!(asked.ask(&table), format!("Token({error:?})"), "{host} {token}");
        }
        let asked = Asked { bearer, ids: all(&["ash"]), ..trusted() };
        assert_eq!(asked.ask(&table), format!("Token({error:?})"), "a good header does not help");
    }
    assert_eq!(
        with_token(&table, "api.schools.example", &signed(&signer, json!({"exp": NOW - 59}))),
        "ash",
        "the leeway"
    );
    assert_eq!(with_token(&table, "api.schools.example", &signed(&signer, json!({"exp": NOW as f64 + 0.5}))), "ash");
    assert_eq!(
        with_token(&table, "api.schools.example", &signer.sign(&json!({"alg": "EdDSA"}), &claims(json!({})))),
        "ash"
    );
}

#[test]
fn what_no_issuer_signed_is_a_tenants_own_business() {
    let signer = TokenSigner::ed25519();
    let table = table_with(|_| {}, vec![issuer("idp", json!([signer.jwk("k")]), json!({}))]);
    let twice = format!(
        "{}.{}.AA",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA"}"#),
        URL_SAFE_NO_PAD.encode(r#"{"iss":"https://id.example","iss":"https://id.example"}"#)
    );
    let elsewhere = signed(&signer, json!({"iss": "https://other.example", "tenantId": "birch"}));
    let long = format!("{}.a.b", "a".repeat(9_000));
    for (token, error) in [
        ("opaque", "Format"),
        ("a.b.c", "Format"),
        ("....", "Format"),
        ("e30.e30.", "Format"),
        (&long, "Format"),
        (&twice, "Format"),
        (&elsewhere, "Issuer"),
    ] {
        assert_eq!(with_token(&table, "ash.schools.example", token), "ash", "{token}");
        assert_eq!(with_token(&table, "api.schools.example", token), format!("Token({error})"), "{token}");
        let bearer = Bearer::of(&table, format!("bearer {token}").as_bytes(), NOW);
        assert_eq!(Asked { bearer, ids: all(&["ash"]), ..trusted() }.ask(&table), "ash", "{token}");
    }
    for none in ["Basic YTpi", "Bearer", "Bearer ", "Bearertoken", ""] {
        assert!(matches!(Bearer::of(&table, none.as_bytes(), NOW), Bearer::Absent), "{none}");
    }
}

#[test]
fn a_token_never_takes_the_place_of_the_host() {
    let signer = TokenSigner::ed25519();
    let table = table_with(|_| {}, vec![issuer("idp", json!([signer.jwk("k")]), json!({}))]);
    let token = signed(&signer, json!({}));
    assert_eq!(with_token(&table, "ash.schools.example", &token), "ash");
    assert_eq!(with_token(&table, "birch.schools.example", &token), "Mismatch(birch, token ash)");
    assert_eq!(with_token(&table, "late.schools.example", &token), "Mismatch(late, token ash)");
    assert_eq!(with_token(&table, "nosuch.schools.example", &token), "UnknownHost");
    let nobody = signed(&signer, json!({"tenantId": null}));
    assert_eq!(with_token(&table, "birch.schools.example", &nobody), "birch");
}

#[test]
fn a_caller_with_a_token_may_select_by_header_whom_the_token_allows() {
    let signer = TokenSigner::ed25519();
    let table = table_with(|_| {}, vec![issuer("idp", json!([signer.jwk("k")]), json!({}))]);
    let ask = |change: Value, header: &str| {
        let bearer = Bearer::of_token(&table, signed(&signer, change).as_bytes(), NOW);
        Asked { bearer, ids: all(&[header]), ..stranger() }.ask(&table)
    };
    assert_eq!(ask(json!({}), "ash"), "ash");
    assert_eq!(ask(json!({}), "birch"), "Mismatch(birch, token ash)");
    assert_eq!(ask(json!({"tenantId": null}), "birch"), "birch", "a service's token that names nobody");
}

#[test]
fn an_issuer_of_one_tenant_or_zone_counts_nowhere_else() {
    let signer = TokenSigner::ed25519();
    let ash = tenant("ash", TenantState::Active).id;
    let of_ash = table_with(|_| {}, vec![issuer("idp", json!([signer.jwk("k")]), json!({"tenant": ash}))]);
    let ask = |host: &str, change: Value| with_token(&of_ash, host, &signed(&signer, change));
    assert_eq!(ask("api.schools.example", json!({"tenantId": null})), "ash", "it speaks for its tenant");
    assert_eq!(
        ask("api.schools.example", json!({"tenantId": "birch"})),
        "Mismatch(birch, token ".to_owned() + &ash.to_string() + ")"
    );
    assert_eq!(
        ask("birch.schools.example", json!({"tenantId": "birch"})),
        "Mismatch(birch, token ".to_owned() + &ash.to_string() + ")"
    );
    let expired = json!({"exp": NOW - 100});
    assert_eq!(ask("ash.schools.example", expired.clone()), "Token(Expired)");
    assert_eq!(ask("birch.schools.example", expired.clone()), "birch", "not this school's issuer: not our business");

    let of_zone = table_with(|_| {}, vec![issuer("idp", json!([signer.jwk("k")]), json!({"zone": "other.example"}))]);
    let ask = |host: &str, change: Value| with_token(&of_zone, host, &signed(&signer, change));
    assert_eq!(ask("api.other.example", json!({})), "ash");
    assert_eq!(ask("api.schools.example", json!({})), "Token(Issuer)");
    assert_eq!(ask("ash.schools.example", expired.clone()), "ash");
    assert_eq!(ask("ash.other.example", expired), "Token(Expired)");
    assert_eq!(ask("birch.schools.example", json!({})), "Mismatch(birch, token ash)", "it was verified all the same");
}

#[test]
fn a_zone_can_want_a_token() {
    let signer = TokenSigner::ed25519();
    let table = table_with(|zone| zone.require_token = true, vec![issuer("idp", json!([signer.jwk("k")]), json!({}))]);
    assert_eq!(Asked { ids: all(&["ash"]), ..trusted() }.ask(&table), "MissingToken");
    assert_eq!(with_token(&table, "api.schools.example", "opaque"), "Token(Format)");
    assert_eq!(with_token(&table, "api.schools.example", &signed(&signer, json!({}))), "ash");
    assert_eq!(Asked::of("ash.schools.example").ask(&table), "ash", "on its own host it is the school's business");
}

#[test]
fn several_authorization_fields_are_refused() {
    let signer = TokenSigner::ed25519();
    let table = table_with(|_| {}, vec![issuer("idp", json!([signer.jwk("k")]), json!({}))]);
    for host in ["api.schools.example", "ash.schools.example"] {
        assert_eq!(Asked { bearer: Bearer::Several, ..Asked::of(host) }.ask(&table), "Token(Format)");
    }
}

#[test]
fn a_key_that_is_gone_verifies_nothing() {
    let signer = TokenSigner::ed25519();
    let fetched = issuer("idp", json!([]), json!({"source": {"url": "https://id.example/keys"}}));
    let table = table_with(|_| {}, vec![fetched]);
    assert_eq!(with_token(&table, "api.schools.example", &signed(&signer, json!({}))), "Token(Key)");
}

#[test]
fn two_issuers_cannot_have_one_name_in_tokens() {
    let signer = TokenSigner::ed25519();
    let base = table_with(|_| {}, vec![issuer("one", json!([signer.jwk("k")]), json!({}))]);
    let put = |object: Object| crate::snapshot::Change::Put(object);
    let live = &crate::table::NoLive;
    let two = issuer("two", json!([signer.jwk("k")]), json!({}));
    let refused = base.with_changes(Revision(2), &[put(two.clone())], live).expect_err("refused");
    assert_eq!(refused.to_string(), "tokens of `https://id.example` belong to the issuer one already");
    // In one delta the name may pass from one to the other, in either order.
    let renamed = issuer("one", json!([signer.jwk("k")]), json!({"issuer": "https://old.example"}));
    for changes in [[put(two.clone()), put(renamed.clone())], [put(renamed), put(two)]] {
        let table = base.with_changes(Revision(2), &changes, live).expect("holds together");
        assert_eq!(table.issuer_of("https://id.example").map(|i| i.id.as_str()), Some("two"));
        assert_eq!(table.issuer_of("https://old.example").map(|i| i.id.as_str()), Some("one"));
    }
    let remove = |key| crate::snapshot::Change::Remove(key);
    let gone = remove(crate::snapshot::ObjectKey::TokenIssuer("one".parse().expect("a name")));
    let table = base.with_changes(Revision(2), &[gone], live).expect("holds together");
    assert!(table.has_no_issuers() && table.issuer_of("https://id.example").is_none());
}

#[test]
fn an_issuer_holds_its_tenant_and_zone() {
    let signer = TokenSigner::ed25519();
    let birch = tenant("birch", TenantState::Active).id;
    let held = json!({"tenant": birch, "zone": "other.example"});
    let table = table_with(|_| {}, vec![issuer("idp", json!([signer.jwk("k")]), held)]);
    for key in [
        crate::snapshot::ObjectKey::Tenant(birch),
        crate::snapshot::ObjectKey::Zone("other.example".parse().expect("a name")),
    ] {
        let removed = table.with_changes(Revision(2), &[crate::snapshot::Change::Remove(key)], &crate::table::NoLive);
        assert!(removed.expect_err("refused").to_string().contains("token issuers still use it"));
    }
}

#[test]
fn an_explanation_is_the_decision_and_says_every_step() {
    let signer = TokenSigner::ed25519();
    let table = table_with(|_| {}, vec![issuer("idp", json!([signer.jwk("k")]), json!({}))]);
    let token = signed(&signer, json!({}));
    let explained = |request: Value| {
        let request = serde_json::from_value(request).expect("a request");
        serde_json::to_value(explain(&table, &request, NOW)).expect("JSON")
    };
    let refused = explained(json!({
        "host": "birch.schools.example", "path": "/x?tenant=birch",
        "headers": {"Authorization": format!("Bearer {token}"), "X-Tenant-ID": "birch"},
    }));
    assert_eq!(refused["outcome"]["status"], 403);
    assert_eq!(refused["outcome"]["error"], "TENANT_MISMATCH");
    assert_eq!(refused["would_have"]["pool"], "shared");
    assert_eq!(refused["would_have"]["plan"], "basic");
    let steps: Vec<_> =
        refused["steps"].as_array().expect("a list").iter().map(|s| s["step"].as_str().expect("text")).collect();
    assert_eq!(steps, ["authority", "host", "token", "tenant", "sni", "agreement", "agreement", "agreement", "answer"]);
    assert!(!refused.to_string().contains(&token), "a token is not shown");

    let served = explained(
        json!({"host": "api.schools.example", "headers": {"X-Tenant-ID": ["ash", "ash"]}, "client_ip": "10.0.0.1"}),
    );
    assert_eq!((&served["outcome"]["action"], &served["outcome"]["via"]), (&json!("forward"), &json!("header")));
    assert_eq!(served["revision"], 1);
    let ignored = explained(
        json!({"host": "api.schools.example", "headers": {"X-Tenant-ID": "ash"}, "client_ip": "203.0.113.1"}),
    );
    assert_eq!(ignored["outcome"]["error"], "TENANT_NOT_FOUND");
    let candidate =
        ignored["steps"].as_array().expect("a list").iter().find(|s| s["step"] == "candidate").expect("there");
    assert_eq!((&candidate["result"], &candidate["tenant"]), (&json!("ignored"), &json!("ash")));
    assert_eq!(explained(json!({"host": "nosuch.example"}))["outcome"]["status"], 404);
    assert_eq!(explained(json!({"host": "ash.schools.example", "tls": false}))["outcome"]["status"], 308);
    assert_eq!(
        explained(json!({"host": "ash.schools.example", "sni": "birch.schools.example"}))["outcome"]["status"],
        421
    );
    assert!(serde_json::from_value::<DescribedRequest>(json!({"host": "a", "hsot": "b"})).is_err());
}

#[test]
fn a_recorded_request_is_explained_as_it_was_decided_and_holds_no_secret() {
    let signer = TokenSigner::ed25519();
    let table = table_with(|zone| zone.path_prefix = true, vec![issuer("idp", json!([signer.jwk("k")]), json!({}))]);
    let (good, bad) = (signed(&signer, json!({})), signed(&signer, json!({"exp": 1})));
    for described in [
        json!({"host": "ash.schools.example", "path": "/x?secret=1"}),
        json!({"host": "ash.schools.example", "path": "/x?secret=1&tenant=birch"}),
        json!({"host": "ash.schools.example", "sni": "birch.schools.example"}),
        json!({"host": "ash.schools.example", "headers": {"X-Tenant-Slug": ["ash", "birch"]}}),
        json!({"host": "api.schools.example", "headers": {"X-Tenant-ID": "ash"}, "client_ip": "10.0.0.1"}),
        json!({"host": "api.schools.example", "headers": {"X-Tenant-ID": "ash", "Cookie": "secret=1"}}),
        json!({"host": "api.schools.example", "headers": {"Authorization": format!("Bearer {good}")}}),
        json!({"host": "api.schools.example", "headers": {"Authorization": format!("Bearer {bad}")}}),
        json!({"host": "api.schools.example", "headers": {"Authorization": "Bearer secret"}}),
        json!({"host": "api.schools.example", "headers": {"Authorization": ["Bearer a", "Bearer b"]}}),
        json!({"host": "api.schools.example", "path": "/t/birch/x"}),
        json!({"host": "nosuch.example"}),
        json!({"host": "ash.schools.example", "tls": false}),
    ] {
        let described: DescribedRequest = serde_json::from_value(described).expect("a request");
        let explained = explain(&table, &described, NOW);
        let (path, query) = described.path.split_once('?').unwrap_or((&described.path, ""));
        let bearer = match described.headers.get("Authorization") {
            None => Bearer::Absent,
            Some(super::explain::Lines::One(line)) => Bearer::of(&table, line.as_bytes(), NOW),
            Some(super::explain::Lines::Several(_)) => Bearer::Several,
        };
        let tenant = explained.outcome.tenant.as_ref().and_then(|slug| table.tenant_by_slug(slug));
        let names = described.headers.keys().map(String::as_str);
        let Conditions { tenant_ids, tenant_slugs, fields, met, cookies } =
            Conditions::of(&table, tenant.map(|t| &**t), &described, names);
        let recorded = RecordedRequest {
            request_id: "01".to_owned(),
            at_ms: NOW * 1_000,
            revision: table.revision(),
            client_ip: described.client_ip.unwrap_or([0, 0, 0, 0].into()),
            tls: described.tls,
            sni: described.tls.then(|| described.sni.clone().unwrap_or_else(|| described.host.clone())),
            host: Some(described.host.clone()),
            method: described.method.clone(),
            path: path.to_owned(),
            tenant_query: RecordedRequest::tenant_query(Some(query)),
            tenant_ids,
            tenant_slugs,
            fields,
            conditions: met,
            cookies,
            chance: u64::MAX,
            token: RecordedToken::from(&bearer),
            happened: Happened::default(),
        };
        let kept = serde_json::to_string(&recorded).expect("JSON");
        let read: RecordedRequest = serde_json::from_str(&kept).expect("reads back");
        assert_eq!(explain_recorded(&table, &read), explained, "{described:?}");
        for secret in ["secret=1", "Bearer", &good, &bad] {
            assert!(!kept.contains(secret), "{secret} is kept: {kept}");
        }
    }
}

#[test]
fn what_would_have_happened_is_told_of_every_request_that_has_a_tenant() {
    let table = table_with(|zone| zone.path_prefix = true, Vec::new());
    let explained = |request: Value| {
        let request = serde_json::from_value(request).expect("a request");
        serde_json::to_value(explain(&table, &request, NOW)).expect("JSON")
    };
    for (request, error, path) in [
        (json!({"host": "api.schools.example", "path": "/t/late/x?y"}), json!("TENANT_SUSPENDED"), "/x"),
        (json!({"host": "api.schools.example", "path": "/t/ash/x"}), json!(null), "/x"),
        (
            json!({"host": "ash.schools.example", "sni": "birch.schools.example", "path": "/x"}),
            json!("MISDIRECTED"),
            "/x",
        ),
        (json!({"host": "gone.schools.example", "path": "/x"}), json!("TENANT_NOT_ACTIVE"), "/x"),
    ] {
        let explanation = explained(request);
        assert_eq!(explanation["outcome"]["error"], error, "{explanation}");
        assert_eq!(explanation["would_have"]["path"], path, "{explanation}");
        assert_eq!(explanation["would_have"]["pool"], "shared", "{explanation}");
    }
    assert_eq!(explained(json!({"host": "api.schools.example"}))["would_have"], Value::Null);
}

#[test]
fn a_tenant_does_not_take_over_a_shared_host_by_its_slug() {
    let host = |zone: &mut Zone| zone.shared_host = Some("birch.schools.example".parse().expect("a name"));
    let table = table_with(host, Vec::new());
    assert_eq!(Asked::of("birch.schools.example").ask(&table), "NoIdentifier");
    assert_eq!(
        Asked { ids: all(&["ash"]), client: [10, 0, 0, 1].into(), ..Asked::of("birch.schools.example") }.ask(&table),
        "ash"
    );
    assert_eq!(Asked::of("birch.other.example").ask(&table), "birch");
}
