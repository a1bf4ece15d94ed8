//! `/t/{slug}/…`: the tenant in a path, on shared hosts of zones that say so.

/// A path that names a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prefixed<'r> {
    /// As written: an escaped slug is no slug.
    pub(super) slug: &'r str,
    /// `/t/{slug}`: what is cut off before forwarding.
    pub(super) prefix: &'r str,
    /// What is left; begins with `/`.
    pub(super) rest: &'r str,
}

impl<'r> Prefixed<'r> {
    pub(super) fn of(path: &'r str) -> Option<Self> {
        let after = path.strip_prefix("/t/")?;
        let slug = after.split('/').next().filter(|slug| !slug.is_empty())?;
        let (prefix, rest) = path.split_at("/t/".len() + slug.len());
        Some(Self { slug, prefix, rest: if rest.is_empty() { "/" } else { rest } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slug_is_a_whole_segment_after_t() {
        let of = |path| Prefixed::of(path).map(|p| (p.slug, p.prefix, p.rest));
        assert_eq!(of("/t/ash/grades/1"), Some(("ash", "/t/ash", "/grades/1")));
        assert_eq!(of("/t/ash"), Some(("ash", "/t/ash", "/")));
        assert_eq!(of("/t/ash/"), Some(("ash", "/t/ash", "/")));
        assert_eq!(of("/t/%61sh/x"), Some(("%61sh", "/t/%61sh", "/x")));
        for none in ["/", "/t", "/t/", "/t//x", "/tt/ash", "/x/t/ash", "/T/ash"] {
            assert_eq!(of(none), None, "{none}");
        }
    }
}
