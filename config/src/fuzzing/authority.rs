use crate::identity::normalise;
use crate::model::DomainName;

/// `Host` and `:authority` as a client sends them: what is taken is a name, and taking it again changes nothing.
pub fn authority(sent: &[u8]) {
    let Ok(sent) = std::str::from_utf8(sent) else { return };
    let Ok(taken) = normalise(sent) else { return };
    assert_eq!(normalise(&taken.host).expect("a host is an authority").host, taken.host);
    assert_eq!(DomainName::parse(&taken.host).expect("a host is a name").as_str(), taken.host);
    assert!(taken.host.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.')), "{:?}", taken.host);
    assert_ne!(taken.port, Some(0));
}
