//! The pages, as a browser gets them.

use axum::body::Body;
use axum::http::Method;
use serde_json::json;

use crate::site::{Instance, Site, claims_with};

async fn site_and_app() -> (Site, Instance, String) {
    let site = Site::new();
    let app = site.instance().await;
    let token = site.greenhill();
    (site, app, token)
}

#[tokio::test]
async fn the_home_page_names_the_school_its_plan_and_its_counts() {
    let (_site, app, token) = site_and_app().await;
    let page = app.get("/", &token).await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let html = page.text();
    for expected in
        ["<h1>Greenhill Academy</h1>", "basic", "advanced reporting", "Academic year", "<a href=\"/students\">8</a>"]
    {
        assert!(html.contains(expected), "{expected:?} is not in {html}");
    }
}

#[tokio::test]
async fn the_students_page_lists_searches_and_turns_pages() {
    let (_site, app, token) = site_and_app().await;
    let html = app.get("/students", &token).await.text();
    assert!(html.contains("Mushi, Baraka") && html.contains("Grade 10 A"), "{html}");
    let html = app.get("/students?q=mushi", &token).await.text();
    assert!(html.contains("Mushi, Baraka") && !html.contains("Rossi"), "{html}");
    for n in 0..30 {
        app.post("/api/students", &token, &json!({"given_name": "Zed", "family_name": format!("Zz{n:02}")})).await;
    }
    let html = app.get("/students?q=z%26z", &token).await.text();
    assert!(html.contains("0 students") && html.contains("z&#38;z"), "{html}");
    let html = app.get("/students?q=zed", &token).await.text();
    assert!(html.contains("Page 1 of 2") && html.contains("/students?q=zed&amp;page=2"), "{html}");
    let html = app.get("/students?q=zed&page=2", &token).await.text();
    assert!(html.contains("Zz29, Zed") && !html.contains("Zz24, Zed"), "{html}");
    let html = app.get("/students?q=zed&page=99", &token).await.text();
    assert!(html.contains("Page 2 of 2"), "{html}");
}

#[tokio::test]
async fn the_classes_page_counts_heads() {
    let (_site, app, token) = site_and_app().await;
    let html = app.get("/classes", &token).await.text();
    assert!(html.contains("Grade 10") && html.contains("8 students in 2 sections"), "{html}");
}

#[tokio::test]
async fn the_form_enrols_and_leads_back_to_the_list() {
    let (_site, app, token) = site_and_app().await;
    let form =
        [("given_name", "Asha"), ("family_name", "Juma"), ("date_of_birth", ""), ("gender", ""), ("section_id", "")];
    let answer = app.post_form("/students", &token, &form).await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    let html = app.get(answer.header("location"), &token).await.text();
    assert!(html.contains("Asha Juma is enrolled") && html.contains("Juma, Asha"), "{html}");
}

#[tokio::test]
async fn a_wrong_form_comes_back_with_what_was_typed() {
    let (_site, app, token) = site_and_app().await;
    let form = [("given_name", "Asha"), ("family_name", ""), ("date_of_birth", "2999-01-01")];
    let answer = app.post_form("/students", &token, &form).await;
    assert_eq!(answer.status, 400);
    let html = answer.text();
    assert!(
        html.contains("value=\"Asha\"") && html.contains("family_name-error") && html.contains("date_of_birth-error"),
        "{html}"
    );
}

#[tokio::test]
async fn a_form_from_another_site_is_refused() {
    let (_site, app, token) = site_and_app().await;
    let request = app.request(Method::POST, "/students", Some(&token));
    let request =
        request.header("Content-Type", "application/x-www-form-urlencoded").header("Sec-Fetch-Site", "cross-site");
    let answer = app.send(request.body(Body::from("given_name=A&family_name=B")).unwrap()).await;
    assert_eq!(answer.problem(), (403, "FORBIDDEN".to_owned()));
}

#[tokio::test]
async fn names_are_text_and_never_markup() {
    let site = Site::new();
    let app = site.instance().await;
    let script = "<script>alert(1)</script>";
    let token = site.gateway.sign(&claims_with(json!({"name": script, "plan": script, "features": [script]})));
    let student = json!({"given_name": script, "family_name": "\"><img src=x onerror=alert(1)>"});
    assert_eq!(app.post("/api/students", &token, &student).await.status, 201);
    for path in ["/", "/students", "/classes", "/students?q=%3Cscript%3E%22%3E%3Cimg", "/nothing"] {
        let request = app.request(Method::GET, path, Some(&token)).header("Accept", "text/html");
        let page = app.send(request.body(Body::empty()).unwrap()).await;
        let html = page.text();
        assert!(!html.contains("<script") && !html.contains("<img"), "{path}: {html}");
        assert!(html.contains("&#60;script&#62;"), "{path}: {html}");
        assert!(page.header("content-security-policy").starts_with("default-src 'none'"), "{path}");
    }
    let form = [("given_name", ""), ("family_name", "\"><script>")];
    let html = app.post_form("/students", &token, &form).await.text();
    assert!(!html.contains("<script"), "{html}");
}

#[tokio::test]
async fn the_theme_is_a_style_sheet_of_the_schools_colours() {
    let (site, app, token) = site_and_app().await;
    let css = app.get("/theme.css", &token).await;
    assert_eq!(css.header("content-type"), "text/css; charset=utf-8");
    assert!(css.text().contains("--primary: #1f6f43;"), "{}", css.text());
    let hostile = site.gateway.sign(&claims_with(
        json!({"theme": {"primary_color": "red;}body{display:none", "logo_url": "javascript:alert(1)"}}),
    ));
    assert!(!app.get("/theme.css", &hostile).await.text().contains("display"));
    assert!(!app.get("/", &hostile).await.text().contains("javascript:"));
}

#[tokio::test]
async fn a_browser_gets_trouble_as_a_page() {
    let (_site, app, token) = site_and_app().await;
    let request = app.request(Method::GET, "/nothing", Some(&token)).header("Accept", "text/html,*/*");
    let page = app.send(request.header("X-Request-ID", "01JDRQ").body(Body::empty()).unwrap()).await;
    assert_eq!((page.status.as_u16(), page.header("content-type")), (404, "text/html; charset=utf-8"));
    assert!(page.text().contains("Greenhill Academy") && page.text().contains("01JDRQ"), "{}", page.text());
}

#[tokio::test]
async fn what_is_one_schools_is_kept_by_nobody_on_the_way() {
    let (_site, app, token) = site_and_app().await;
    for path in ["/", "/students", "/classes", "/whoami", "/api/students", "/api/classes", "/nothing"] {
        let answer = app.get(path, &token).await;
        assert!(answer.header("cache-control").contains("no-store"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
    }
}

#[tokio::test]
async fn assets_are_there_and_kept() {
    let (_site, app, token) = site_and_app().await;
    for (path, media_type) in [("/assets/app.css", "text/css; charset=utf-8"), ("/assets/favicon.svg", "image/svg+xml")]
    {
        let asset = app.get(path, &token).await;
        assert_eq!((asset.status.as_u16(), asset.header("content-type")), (200, media_type));
        assert!(asset.header("cache-control").contains("max-age"));
    }
}
