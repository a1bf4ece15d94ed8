//! What a certificate authority that looks over plain HTTP would find.

use crate::expected::Expected;
use crate::finding::{Axis, Code, Finding, WhoActs};
use crate::observation::{Observation, Reach, Reached};

/// Names what is before this gateway, or that it cannot be reached.
pub(super) fn check(observation: &Observation, expected: &Expected, findings: &mut Vec<Finding>) {
    let name = &expected.name;
    for Reached { address, reach } in &observation.reached {
        let new = |code, fix: String| {
            let what = format!("this gateway at http://{name}/ on {address}, port 80");
            Finding::new(code, Axis::Certificate, what, fix).acts(WhoActs::Operator)
        };
        let finding = match reach {
            Reach::Ours | Reach::OursSoon => continue,
            Reach::Redirect { location } => {
                let fix = "Something before the gateway redirects plain HTTP. A certificate authority follows that, and \
                           fails unless it ends here: let port 80 through to the gateway, which redirects by itself";
                new(Code::HttpRedirected, fix.to_owned()).found(format!("a redirect to {location}"))
            }
            Reach::Foreign { status, server } => {
                let who = server.as_deref().unwrap_or("a server that does not say what it is");
                let fix = "Another server answers where the certificate authority would look. Let port 80 of this address \
                           through to the gateway; where that address leads elsewhere only from inside (a router \
                           that answers for itself), set dns.probe = \"off\"";
                new(Code::ForeignServer, fix.to_owned()).found(format!("{who}, status {status}"))
            }
            Reach::Unreachable(why) => {
                let fix = "Open port 80 of this address in firewalls and forward it to the gateway. Where the gateway \
                           cannot reach its own public address, this can be so although others reach it";
                new(Code::HttpUnreachable, fix.to_owned()).found(why.clone())
            }
        };
        findings.push(finding);
    }
}
