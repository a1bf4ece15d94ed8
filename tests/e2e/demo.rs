//! `schoolgate` in an empty directory: three schools, at once.

use schoolgate_testkit::Site;
use serde_json::json;

use crate::SOON;

fn demo() -> schoolgate_testkit::SiteBuilder {
    Site::builder(env!("CARGO_BIN_EXE_schoolgate")).demo()
}

#[tokio::test]
async fn three_schools_answer_each_with_its_own_plan() {
    let site = demo().up().await;
    for (slug, plan, pool) in
        [("greenhill", "basic", "shared"), ("riverside", "standard", "shared"), ("lincoln", "premium", "lincoln")]
    {
        let client = site.client(&format!("{slug}.localhost"));
        let whoami = client.get_json("/whoami").await;
        assert_eq!(whoami["tenant"]["slug"], slug);
        assert_eq!(whoami["plan"], plan);
        let tenant = site.api().get(&format!("tenants/slug:{slug}")).await.expect(200);
        assert_eq!((&tenant["pool"], &tenant["active"]), (&json!(pool), &json!(true)));
        let page = client.get("/").await;
        assert_eq!(page.status(), 200);
        assert!(page.headers()["content-type"].to_str().is_ok_and(|t| t.starts_with("text/html")));
    }
}

#[tokio::test]
async fn the_curl_line_it_prints_works_as_printed() {
    let site = demo().up().await;
    let log = site.log();
    let line = log.lines().find_map(|l| l.find("curl --cacert").map(|at| l[at..].trim().to_owned()));
    let line = line.unwrap_or_else(|| panic!("no curl line in:\n{log}"));
    assert!(line.contains("greenhill.localhost"), "{line}");
    let output = std::process::Command::new("sh")
        .args(["-c", &format!("{line} --silent --show-error --fail")])
        .output()
        .expect("sh runs");
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn a_second_start_finds_all_as_it_was() {
    let mut site = demo().up().await;
    let greenhill = site.client("greenhill.localhost");
    let made = greenhill
        .request(reqwest::Method::POST, "/api/students")
        .json(&json!({"given_name": "Ada", "family_name": "Lovelace", "admission_no": "T-1"}))
        .send()
        .await
        .expect("an answer");
    assert_eq!(made.status(), 201, "{}", made.text().await.unwrap_or_default());
    let before = site.api().get("tenants").await.expect(200);
    let (ca, token) = (site.ca(), site.token());
    assert!(site.stop().await.success());
    site.start().await;
    assert_eq!((site.ca(), site.token()), (ca, token));
    assert_eq!(site.api().get("tenants").await.expect(200), before);
    let students = site.client("greenhill.localhost").get_json("/api/students?q=Lovelace").await;
    assert_eq!(students["items"].as_array().map(Vec::len), Some(1), "{students}");
}

#[tokio::test]
async fn two_gateways_run_side_by_side() {
    let (one, two) = tokio::join!(demo().up(), demo().up());
    for site in [&one, &two] {
        assert_eq!(site.client("greenhill.localhost").get("/whoami").await.status(), 200);
    }
    assert_ne!(one.https(), two.https());
}

#[tokio::test]
async fn stopping_leaves_no_child_behind() {
    let mut site = demo().up().await;
    let pid = site.proxy.pid().expect("it runs");
    let children = children_of(pid);
    assert!(children.len() >= 3, "two shared instances and a dedicated one: {children:?}");
    assert!(site.stop().await.success());
    for child in children {
        assert!(!is_running(child), "child {child} still runs");
    }
}

#[tokio::test]
async fn children_do_not_outlive_a_killed_parent() {
    let mut site = demo().up().await;
    let pid = site.proxy.pid().expect("it runs");
    let children = children_of(pid);
    site.proxy.kill_alone();
    schoolgate_testkit::eventually(SOON, || {
        let children = children.clone();
        async move { children.iter().all(|child| !is_running(*child)) }
    })
    .await;
}

#[tokio::test]
async fn a_school_app_instance_that_dies_is_started_again() {
    let site = demo().up().await;
    let pid = site.proxy.pid().expect("it runs");
    let child = *children_of(pid).first().expect("a child");
    let killed = std::process::Command::new("kill").args(["-9", &child.to_string()]).status().expect("kill runs");
    assert!(killed.success());
    schoolgate_testkit::eventually(SOON, || async {
        children_of(pid).len() >= 3 && !children_of(pid).contains(&child)
    })
    .await;
    for slug in ["greenhill", "lincoln"] {
        let client = site.client(&format!("{slug}.localhost"));
        schoolgate_testkit::eventually(SOON, || async {
            client.try_get("/whoami").await.is_ok_and(|r| r.status() == 200)
        })
        .await;
    }
}

#[tokio::test]
async fn an_instance_whose_port_was_taken_while_it_was_away_moves_and_its_pool_follows() {
    let site = demo().up().await;
    let api = site.api();
    let before = api.get("pools/lincoln").await.expect(200)["backends"][0].clone();
    let address = before["address"].as_str().expect("an address").to_owned();
    let port: std::net::SocketAddr = address.trim_start_matches("http://").parse().expect("an address");
    let instance = children_of(site.proxy.pid().expect("it runs"))
        .into_iter()
        .find(|child| arguments_of(*child).contains(&port.to_string()))
        .expect("an instance of the pool");
    let killed = std::process::Command::new("kill").args(["-9", &instance.to_string()]).status().expect("kill runs");
    assert!(killed.success());
    // The supervisor waits a moment before it starts the instance again.
    let stranger = schoolgate_testkit::until(SOON, || async { std::net::TcpListener::bind(port).ok() }).await;
    // It answers nobody; a request that it kept would outlast this test.
    std::thread::spawn(move || stranger.incoming().for_each(drop));
    let after = schoolgate_testkit::until(SOON, || async {
        let backends = api.get("pools/lincoln").await.expect(200)["backends"].clone();
        (backends[0]["address"] != before["address"]).then_some(backends)
    })
    .await;
    assert_eq!(after.as_array().map(Vec::len), Some(1), "{after}");
    assert_ne!(after[0]["id"], before["id"]);
    let client = site.client("lincoln.localhost");
    schoolgate_testkit::eventually(SOON, || async {
        client.try_get("/whoami").await.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
}

/// What a process was started with.
fn arguments_of(pid: u32) -> Vec<String> {
    let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split('\0').map(str::to_owned).collect()
}

/// Direct children of a process that run `schoolgate`.
fn children_of(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|list| list.split_whitespace().filter_map(|n| n.parse().ok()).collect::<Vec<u32>>())
        .filter(|child| is_running(*child))
        .collect()
}

/// Whether a process is there and is no zombie.
fn is_running(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X'])))
}
