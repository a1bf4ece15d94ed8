//! What an instance is started with.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Settings of one instance; also the flags of `schoolgate school-app`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Where to listen: `127.0.0.1:8701` (port 0 takes any free one) or `unix:/run/school.sock`.
    #[arg(long, default_value = "127.0.0.1:8701", value_name = "ADDRESS")]
    pub listen: Listen,

    /// The pool this instance belongs to: the `aud` a tenant context must have. Repeatable.
    #[arg(long = "audience", required = true, value_name = "POOL")]
    pub audiences: Vec<String>,

    /// Where the gateway's public keys are: an `http://` URL or the path of a JWKS file.
    #[arg(long, value_name = "URL|FILE")]
    pub keys: KeySource,

    /// Where the schools' databases are. Instances on one host share it; it must be a local disk.
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,

    /// The `iss` a tenant context must have.
    #[arg(long, default_value = "schoolgate")]
    pub issuer: String,

    /// Where people and storage of the schools are reported: the control API's `http://HOST:PORT/internal/v1/usage`. Not
    /// reported when absent.
    #[arg(long, value_name = "URL", value_parser = report_url, requires = "report_token_file")]
    pub report_url: Option<String>,

    /// File of the token for that, written by the control process as `<data>/instance.token`.
    #[arg(long, value_name = "FILE", requires = "report_url")]
    pub report_token_file: Option<PathBuf>,

    /// The control API, `http://HOST:PORT`: the instance registers itself there as a backend of its pool, says that it is
    /// there, and says goodbye before it stops. It does not when absent.
    #[arg(long, value_name = "URL", value_parser = control_url, requires = "register_token_file")]
    pub register: Option<String>,

    /// File of the token for that: `schoolgate token create NAME --role instance --pool POOL --save FILE`.
    #[arg(long, value_name = "FILE", requires = "register")]
    pub register_token_file: Option<PathBuf>,

    /// Where the gateway finds this instance, such as http://10.0.0.5:8701 [default: where it listens]
    #[arg(long, value_name = "ADDRESS", requires = "register", value_parser = advertised)]
    pub advertise: Option<String>,

    /// How many schools' databases this instance keeps open. Each takes up to 4 threads and 12 file descriptors.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    pub max_open_schools: u32,
}

/// Where reports go, and with which token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReportTo {
    /// `http://HOST:PORT/internal/v1/usage`.
    pub(crate) url: String,
    /// The file of the token.
    pub(crate) token_file: PathBuf,
}

/// Where the instance registers, and with which token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RegisterWith {
    /// `http://HOST:PORT`.
    pub(crate) url: String,
    /// The file of the token.
    pub(crate) token_file: PathBuf,
}

impl Options {
    /// Where the instance registers, if that is wanted.
    pub(crate) fn register_with(&self) -> Option<RegisterWith> {
        let (url, token_file) = self.register.clone().zip(self.register_token_file.clone())?;
        Some(RegisterWith { url, token_file })
    }

    /// Where reports go, if they are wanted.
    pub(crate) fn report_to(&self) -> Option<ReportTo> {
        let (url, token_file) = self.report_url.clone().zip(self.report_token_file.clone())?;
        Some(ReportTo { url, token_file })
    }
}

/// The control API without a path.
fn control_url(text: &str) -> Result<String, String> {
    let uri = text.parse::<axum::http::Uri>().ok();
    let usable = uri.is_some_and(|uri| {
        uri.scheme_str() == Some("http")
            && uri.host().is_some()
            && matches!(uri.path(), "" | "/")
            && uri.query().is_none()
    });
    if usable {
        Ok(text.to_owned())
    } else {
        Err("expected http://HOST:PORT of the control API; it is spoken to without TLS, on this host or a private network"
            .into())
    }
}

/// An address of a backend.
fn advertised(text: &str) -> Result<String, String> {
    let socket = text.strip_prefix("http://").map(|address| address.trim_end_matches('/').parse::<SocketAddr>());
    match socket {
        Some(Ok(address)) if !address.ip().is_unspecified() && address.port() != 0 => Ok(text.to_owned()),
        _ if text.starts_with("unix:/") => Ok(text.to_owned()),
        _ => Err("expected http://IP:PORT or unix:/PATH".into()),
    }
}

/// A URL that reports can go to.
fn report_url(text: &str) -> Result<String, String> {
    let uri = text.parse::<axum::http::Uri>().ok();
    let usable =
        uri.is_some_and(|uri| uri.scheme_str() == Some("http") && uri.host().is_some() && uri.path().len() > 1);
    if usable {
        Ok(text.to_owned())
    } else {
        Err("expected http://HOST:PORT/internal/v1/usage; reports go without TLS, to this host or a private network"
            .into())
    }
}

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A TCP address; port 0 takes any free one.
    Tcp(SocketAddr),
    /// A Unix socket, created at start and removed at the end.
    Unix(PathBuf),
}

/// Why an address was not understood.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is neither an address such as 127.0.0.1:8701 nor unix:/path/to/socket")]
pub struct ListenError(String);

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        match text.strip_prefix("unix:") {
            Some("") => Err(ListenError(text.to_owned())),
            Some(path) => Ok(Self::Unix(PathBuf::from(path))),
            None => text.parse().map(Self::Tcp).map_err(|_| ListenError(text.to_owned())),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Where the public keys of the gateway come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// Fetched by plain HTTP from the control API, which is on the same host or a private network.
    Url(String),
    /// Read from a file.
    File(PathBuf),
}

/// Why a source of keys was not understood.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is neither an http:// URL nor a path; keys are fetched without TLS, from this host or a private network"
)]
pub struct KeySourceError(String);

impl FromStr for KeySource {
    type Err = KeySourceError;

    fn from_str(text: &str) -> Result<Self, KeySourceError> {
        if text.starts_with("http://") {
            Ok(Self::Url(text.to_owned()))
        } else if text.is_empty() || text.contains("://") {
            Err(KeySourceError(text.to_owned()))
        } else {
            Ok(Self::File(PathBuf::from(text)))
        }
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => f.write_str(url),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_tcp_or_a_unix_socket() {
        assert_eq!("127.0.0.1:0".parse::<Listen>().unwrap(), Listen::Tcp("127.0.0.1:0".parse().unwrap()));
        assert_eq!("unix:/run/a.sock".parse::<Listen>().unwrap(), Listen::Unix("/run/a.sock".into()));
        assert!("unix:".parse::<Listen>().is_err());
        assert!("8701".parse::<Listen>().is_err());
    }

    #[test]
    fn reports_go_to_a_path_over_http() {
        assert!(report_url("http://127.0.0.1:8600/internal/v1/usage").is_ok());
        for text in ["", "127.0.0.1:8600", "http://127.0.0.1:8600", "https://control.example/internal/v1/usage"] {
            assert!(report_url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_instance_registers_at_a_control_api_under_an_address_that_can_be_reached() {
        assert!(control_url("http://127.0.0.1:8600").is_ok() && control_url("http://127.0.0.1:8600/").is_ok());
        for text in ["", "127.0.0.1:8600", "https://control.example", "http://127.0.0.1:8600/api/v1", "http://c:1/?a=b"]
        {
            assert!(control_url(text).is_err(), "{text}");
        }
        assert!(advertised("http://10.0.0.5:8701").is_ok() && advertised("unix:/run/app.sock").is_ok());
        for text in ["", "10.0.0.5:8701", "http://0.0.0.0:8701", "http://10.0.0.5:0", "http://app:8701", "unix:x"] {
            assert!(advertised(text).is_err(), "{text}");
        }
    }

    #[test]
    fn keys_come_from_a_url_or_a_file() {
        let url = "http://127.0.0.1:8600/jwks.json";
        assert_eq!(url.parse::<KeySource>().unwrap(), KeySource::Url(url.to_owned()));
        assert_eq!("/etc/jwks.json".parse::<KeySource>().unwrap(), KeySource::File("/etc/jwks.json".into()));
        assert!("https://control.example/jwks.json".parse::<KeySource>().is_err());
    }
}
