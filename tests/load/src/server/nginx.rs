//! nginx: one worker, upstream keep-alive, no access log.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;

use super::{Server, free_port};
use crate::fleet::Leaf;
use crate::process::Running;

/// Starts nginx on one core.
pub(crate) fn start(dir: &Path, cpu: usize, leaf: &Leaf, origin: SocketAddr) -> anyhow::Result<Server> {
    let dir = dir.join("nginx");
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join("chain.pem"), &leaf.chain_pem)?;
    std::fs::write(dir.join("key.pem"), &leaf.key_pem)?;
    let https = free_port()?;
    // The `user` line keeps a master that is root from giving up the files of this directory; others ignore it.
    let config = format!(
        "daemon off;
worker_processes 1;
user root;
pid nginx.pid;
error_log stderr crit;
events {{ worker_connections 9000; }}
http {{
    access_log off;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    upstream origin {{
        server {origin};
        keepalive 512;
        keepalive_timeout 1h;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {https} ssl http2 backlog=4096;
        ssl_certificate chain.pem;
        ssl_certificate_key key.pem;
        ssl_protocols TLSv1.2 TLSv1.3;
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_set_header Host $host;
        }}
    }}
}}
"
    );
    let file = dir.join("nginx.conf");
    std::fs::write(&file, config)?;
    let args = ["-p", &dir.display().to_string(), "-c", &file.display().to_string()].map(str::to_owned);
    let process = Running::start("nginx", cpu, &dir, "nginx", &args).context("nginx")?;
    Server { name: "nginx".to_owned(), https, process, names: usize::MAX }.until_it_serves()
}
