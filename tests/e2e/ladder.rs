//! `schoolgate domain check NAME`: each step with its mark, and of what is in the way its name and who must act.

use std::time::Duration;

use schoolgate_testkit::{Trouble, until};

use crate::delegation::World;

/// A look takes seconds where a server is silent, and looks at one name have pauses between them.
const WITHIN: Duration = Duration::from_secs(90);

/// The ladder of a domain, once it has all of these lines; a line is given by its words.
async fn ladder(world: &World, name: &str, lines: &[&str]) -> String {
    let data = world.site.data().display().to_string();
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    until(WITHIN, async || {
        let output = world.site.run(&["domain", "check", name, "--data-dir", &data]);
        // Who asks again too soon is told so.
        let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
        let shown: Vec<String> = text.lines().map(words).collect();
        lines.iter().all(|line| shown.iter().any(|shown| shown == line)).then_some(text)
    })
    .await
}

/// What the ladder says of one thing that is in the way: the lines between its code and the next step.
fn explanation<'a>(ladder: &'a str, code: &str) -> &'a str {
    let (_, rest) = ladder.split_once(code).unwrap_or_else(|| panic!("no {code} in\n{ladder}"));
    rest.split_once("\n [").map_or(rest, |(until, _)| until)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_way_of_a_domain_is_named_with_who_must_act() {
    let world = World::new().await;
    let records = &world.dns.records;

    // Something else answers at our port 80.
    let (target, _) = world.proven("erp.ash.example").await;
    records.add(&format!("{target} A 127.0.0.1"));
    records.add(&format!("erp.ash.example CNAME {target}"));
    let steps = [
        "[ok] ownership proven",
        "[ok] routing here",
        "[no] certificate queued",
        "FOREIGN_SERVER",
        "[ok] tenant active",
    ];
    let shown = ladder(&world, "erp.ash.example", &steps).await;
    let why = explanation(&shown, "FOREIGN_SERVER");
    assert!(why.contains("found") && why.contains("status 200") && why.contains("operator"), "{shown}");
    assert!(shown.contains("\nnot ready; its DNS was looked at "), "{shown}");

    // Our CA may not.
    world.proven("caa.ash.example").await;
    records.add("caa.ash.example A 127.0.0.1");
    records.add("caa.ash.example CAA 0 issue other.test");
    let steps = ["[ok] ownership proven", "[ok] routing here", "[no] certificate queued", "CAA_FORBIDS"];
    let shown = ladder(&world, "caa.ash.example", &steps).await;
    let why = explanation(&shown, "CAA_FORBIDS");
    assert!(why.contains("other.test") && why.contains("school") && why.contains("ca.test"), "{shown}");

    // Two resolvers differ, and the zone's own server is nowhere to be asked.
    records.zone("split.example");
    records.remove("split.example", "NS");
    records.add("split.example NS gone.dns.test");
    world.proven("erp.split.example").await;
    records.add("erp.split.example A 127.0.0.1");
    world.dns.instead[1].add("erp.split.example A 198.51.100.9");
    let steps = ["[ok] ownership proven", "[no] routing partial", "SPLIT_ANSWERS"];
    let shown = ladder(&world, "erp.split.example", &steps).await;
    let why = explanation(&shown, "SPLIT_ANSWERS");
    assert!(why.contains("198.51.100.9; 1 of 2 servers point here") && why.contains("school"), "{shown}");

    // Nobody answers for the proof.
    world.proven("silent.ash.example").await;
    records.add("silent.ash.example A 127.0.0.1");
    records.trouble("_schoolgate.silent.ash.example", Trouble::Silent);
    let steps = ["[no] ownership unproven", "NO_ANSWER", "[ok] routing here"];
    let shown = ladder(&world, "silent.ash.example", &steps).await;
    assert!(explanation(&shown, "NO_ANSWER").contains("operator"), "{shown}");

    assert_eq!(world.pebble.orders(), 1, "the CA has heard of none of them");
}

/// The check looks as a CA does, so a gateway that is reached answers its own question.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_answers_at_its_own_door_gets_its_certificate_and_every_step_a_tick() {
    let world = World::new().await;
    let name = "erp.ash.example";
    let (target, _) = world.proven(name).await;
    world.dns.records.add(&format!("{target} A 127.0.0.1"));
    world.dns.records.add(&format!("{name} CNAME {target}"));
    ladder(&world, name, &["[no] certificate queued", "FOREIGN_SERVER"]).await;

    world.door.retarget(world.site.http());
    let knocks = world.door.connections();
    let steps = ["[ok] ownership proven", "[ok] routing here", "[ok] certificate issued", "[ok] tenant active"];
    let shown = ladder(&world, name, &steps).await;
    assert!(world.door.connections() > knocks, "the check did not look");
    assert!(shown.contains("\nready; its DNS was looked at "), "{shown}");
    assert!(!shown.contains("not in the way yet"), "{shown}");
    world.serves(name).await;
    assert_eq!(world.pebble.orders(), 2);
}
