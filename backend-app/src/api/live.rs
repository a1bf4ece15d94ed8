//! `GET /api/live`: a WebSocket that says back what it is told, so that a gateway's way with them can be seen.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use tokio::time::timeout;

use crate::context::TenantContext;
use crate::context::admission::Tenant;
use crate::problem::Problem;
use crate::router::App;

/// The longest message, in bytes: 64 KiB.
const MAX_MESSAGE: usize = 64 * 1024;

/// Time the other end has to take our close: 1 s, within the grace of a stop.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

pub(crate) async fn open(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let upgrade = upgrade.map_err(|_| Problem::bad_request("This is for WebSockets."))?;
    Ok(upgrade.max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE).on_upgrade(move |socket| {
        let sockets = app.sockets.clone();
        sockets.track_future(async move { echo(socket, &tenant, &app).await })
    }))
}

/// Answers each text with the school's slug before it, each binary message as it is, until one end closes.
async fn echo(mut socket: WebSocket, tenant: &TenantContext, app: &App) {
    loop {
        let received = tokio::select! {
            received = socket.recv() => received,
            () = app.stopping.cancelled() => {
                let going_away = CloseFrame { code: close_code::AWAY, reason: "the instance stops".into() };
                // Whether the other end still listens is its own affair.
                let _ = timeout(CLOSE_TIMEOUT, socket.send(Message::Close(Some(going_away)))).await;
                return;
            }
        };
        let answer = match received {
            Some(Ok(Message::Text(text))) => Message::Text(format!("{}: {text}", tenant.slug()).into()),
            Some(Ok(Message::Binary(bytes))) => Message::Binary(bytes),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
            Some(Ok(Message::Close(_)) | Err(_)) | None => return,
        };
        if socket.send(answer).await.is_err() {
            return;
        }
    }
}
