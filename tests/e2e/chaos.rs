//! Backends that are killed, paused, slowed and reset at random under load, while routes and pools change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use reqwest::Method;
use schoolgate_testkit::{Http, Mood, OriginProcess, Site, eventually};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::upstreams::{rss_kib, unlimited_school};
use crate::{SOON, gateway};

/// Seconds of chaos, unless `SCHOOLGATE_CHAOS_S` says otherwise.
const SECONDS: u64 = 30;

/// The rules of the pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rules {
    /// Of who wants no request to fail: backends are checked, times are short, a request is tried on three of them.
    Careful,
    /// As they are when nobody says anything.
    Default,
}

/// The schools, and whose backends may answer them: the begin of their names.
const SCHOOLS: [(&str, &str, &str); 4] =
    [("ash", "web", "web-"), ("birch", "web", "web-"), ("cedar", "web", "web-"), ("dogwood", "own", "own-")];

#[tokio::test]
#[ignore = "the body of the processes that the test below starts"]
async fn origin_process() {
    OriginProcess::body().await;
}

/// What the load saw.
#[derive(Debug, Default)]
struct Seen {
    good: AtomicU64,
    /// Writes that failed, as they may.
    unrepeatable: AtomicU64,
    wrong: std::sync::Mutex<Vec<String>>,
}

impl Seen {
    fn wrong(&self, what: String) {
        self.wrong.lock().expect("not poisoned").push(what);
    }
}

#[tokio::test]
async fn no_idempotent_request_fails_while_one_healthy_backend_remains() {
    chaos(Rules::Careful).await;
}

#[tokio::test]
async fn nor_with_the_rules_that_a_pool_has_by_itself() {
    chaos(Rules::Default).await;
}

async fn chaos(rules: Rules) {
    let told = |name: &str| {
        #[expect(clippy::disallowed_methods, reason = "how long, and which chances: asked by who runs the test")]
        std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok())
    };
    let lasts = Duration::from_secs(told("SCHOOLGATE_CHAOS_S").unwrap_or(SECONDS));
    let seed = told("SCHOOLGATE_CHAOS_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let story = format!("SCHOOLGATE_CHAOS_SEED={seed}");

    let mut pools = BTreeMap::new();
    for (pool, count) in [("web", 3), ("own", 2)] {
        let mut processes = Vec::new();
        for n in 0..count {
            processes.push(OriginProcess::start(&format!("{pool}-{n}"), "chaos::origin_process").await);
        }
        pools.insert(pool, processes);
    }
    let site = gateway().up().await;
    let api = site.api();
    for (pool, processes) in &pools {
        let backends: Vec<_> = processes.iter().map(|p| json!({"address": p.url()})).collect();
        let mut body = json!({
            "id": pool, "kind": if *pool == "own" { "dedicated" } else { "shared" }, "backends": backends,
        });
        if rules == Rules::Careful {
            body["health_check"] =
                json!({"interval_ms": 200, "timeout_ms": 2000, "healthy_after": 1, "unhealthy_after": 2});
            body["timeouts"] = json!({"connect_ms": 1000, "first_byte_ms": 2000, "idle_ms": 2000});
            body["ejection"] = json!({"base_ms": 500, "panic_percent": 1});
            body["retry"] = json!({"attempts": 3, "budget_percent": 100});
        }
        api.post("pools", body).await.expect(201);
    }
    for (slug, pool, _) in SCHOOLS {
        unlimited_school(&api, slug, pool).await;
    }

    let (site, seen, stop) = (Arc::new(site), Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
    let mut load = Vec::new();
    for (slug, _, answers) in SCHOOLS {
        for worker in 0..2 {
            let (site, seen, stop) = (Arc::clone(&site), Arc::clone(&seen), Arc::clone(&stop));
            load.push(tokio::spawn(async move { visit(&site, slug, answers, worker, &seen, &stop).await }));
        }
    }
    eventually(SOON, || async { seen.good.load(Ordering::Relaxed) > 200 }).await;
    let (descriptors, memory) = (descriptors(&site), rss_kib(&site));

    let until = Instant::now() + lasts;
    let mut disturbing = Vec::new();
    for (n, (pool, processes)) in (0_u64..).zip(pools) {
        let (site, stop) = (Arc::clone(&site), until);
        let chance = Chance(seed.wrapping_add(n) | 1);
        disturbing.push(tokio::spawn(async move { disturb(&site, pool, processes, chance, stop).await }));
    }
    let changing = {
        let (site, stop) = (Arc::clone(&site), Arc::clone(&stop));
        tokio::spawn(async move { change(&site, &stop).await })
    };
    let mut kept = Vec::new();
    for task in disturbing {
        let (processes, faults) = task.await.expect("no panic");
        assert!(faults > 2, "{faults} faults; {story}");
        kept.push(processes);
    }
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await.expect("no panic");
    }
    changing.await.expect("no panic");

    let wrong = seen.wrong.lock().expect("not poisoned").clone();
    let good = seen.good.load(Ordering::Relaxed);
    assert!(wrong.is_empty(), "{} of {good} went wrong; {story}: {:#?}", wrong.len(), &wrong[..wrong.len().min(10)]);
    eventually(SOON, || async { site.metric("schoolgate_requests_in_flight", &[]).await == 0.0 }).await;
    let client = site.client_with("ash.localhost", Http::One);
    eventually(SOON, || async {
        // What waits idle is let go when another joins it.
        client.get("/").await;
        self::descriptors(&site) <= descriptors + 16
    })
    .await;
    let grew = rss_kib(&site).saturating_sub(memory) / 1024;
    assert!(grew < 96, "the gateway grew by {grew} MiB over {good} requests; {story}");
}

/// A school's visitors: they read, and now and then write.
async fn visit(site: &Site, slug: &str, answers: &str, worker: u64, seen: &Seen, stop: &AtomicBool) {
    let http = if worker == 0 { Http::One } else { Http::Two };
    let client = site.client_with(&format!("{slug}.localhost"), http);
    let mut n = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let writes = n.is_multiple_of(10);
        let method = if writes { Method::POST } else { Method::GET };
        let path = if n.is_multiple_of(3) { "/delay/5" } else { "/" };
        let request = client.request(method, path);
        let request = if writes { request.body("mark") } else { request };
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(_) if writes => {
                seen.unrepeatable.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            Err(error) => {
                seen.wrong(format!("{slug} {path}: {error:?}"));
                continue;
            }
        };
        let status = answer.status();
        let body = answer.text().await;
        if status != 200 {
            if writes {
                seen.unrepeatable.fetch_add(1, Ordering::Relaxed);
            } else {
                seen.wrong(format!("{slug} {path}: {status} {body:?}"));
            }
            continue;
        }
        let Ok(echo) = body.map(|text| serde_json::from_str::<Value>(&text).unwrap_or_default()) else {
            seen.wrong(format!("{slug} {path}: a part of an answer"));
            continue;
        };
        let ours = echo["origin"].as_str().is_some_and(|origin| origin.starts_with(answers));
        let told = echo["headers"].as_array().is_some_and(|h| h.contains(&json!(["x-tenant-slug", slug])));
        if !ours || !told {
            seen.wrong(format!("{slug} {path}: answered for another: {echo}"));
        }
        seen.good.fetch_add(1, Ordering::Relaxed);
    }
}

/// Does all backends of a pool but one harm, and waits until the gateway sees them well again before it spares another.
async fn disturb(
    site: &Site,
    pool: &str,
    mut processes: Vec<OriginProcess>,
    mut chance: Chance,
    until: Instant,
) -> (Vec<OriginProcess>, u32) {
    let mut faults = 0;
    while Instant::now() < until {
        let spared = usize::try_from(chance.below(processes.len() as u64)).expect("small");
        let chosen = processes.iter_mut().enumerate().filter(|(n, _)| *n != spared);
        let harmed = chosen.map(|(_, process)| harm(process, chance.below(4), chance.below(1_500)));
        faults += futures_util::future::join_all(harmed.collect::<Vec<_>>()).await.len();
        let all = processes.len() as f64;
        let label = format!("pool=\"{pool}\"");
        eventually(SOON, || async { site.metric("schoolgate_backend_up", &[&label]).await == all }).await;
    }
    (processes, u32::try_from(faults).expect("few"))
}

/// Does one backend harm of a kind for some time, and lets it be.
async fn harm(process: &mut OriginProcess, kind: u64, chance: u64) {
    let lasts = Duration::from_millis(200 + chance);
    match kind {
        0 => {
            process.kill();
            tokio::time::sleep(lasts).await;
            process.start_again().await;
        }
        1 => {
            process.pause();
            tokio::time::sleep(lasts * 2).await;
            process.resume();
        }
        2 => {
            process.set_mood(Mood::Slow(100 + chance / 5)).await;
            tokio::time::sleep(lasts).await;
            process.set_mood(Mood::Well).await;
        }
        _ => {
            process.set_mood(Mood::Reset).await;
            tokio::time::sleep(lasts).await;
            process.set_mood(Mood::Well).await;
        }
    }
}

/// An operator who never rests: weights, routes and names change all the time.
async fn change(site: &Site, stop: &AtomicBool) {
    let api = site.api();
    let route = Mutex::new(None::<String>);
    let mut n = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let pool = api.get("pools/web").await.expect(200);
        let id = pool["backends"][0]["id"].as_str().expect("an id").to_owned();
        api.patch(&format!("pools/web/backends/{id}"), json!({"weight": 1 + n % 3})).await.expect(200);
        api.patch("tenants/slug:birch", json!({"name": format!("Birch {n}")})).await.expect(200);
        let mut route = route.lock().await;
        match route.take() {
            Some(old) => {
                api.delete(&format!("routes/{old}?wait=applied")).await;
            }
            None => {
                let rule =
                    json!({"match": {"path_prefix": "/delay/"}, "action": {"set_headers": {"x-round": n.to_string()}}});
                let made = api.post("routes?wait=applied", rule).await.expect(201);
                *route = Some(made["id"].as_str().expect("an id").to_owned());
            }
        }
    }
}

/// Chances that a seed repeats.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        // xorshift64 (Marsaglia 2003).
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// Files and sockets that the gateway has open.
fn descriptors(site: &Site) -> usize {
    let pid = site.proxy.pid().expect("it runs");
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}
