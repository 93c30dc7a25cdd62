//! Results in the XML that continuous integration reads.

use std::fmt::Write as _;

/// One suite.
pub(crate) struct Suite {
    pub(crate) name: String,
    pub(crate) cases: Vec<Case>,
}

/// One case; it failed when there is something to say.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) place: String,
    pub(crate) failure: Option<String>,
}

impl Suite {
    /// The whole document.
    pub(crate) fn xml(&self) -> String {
        let failures = self.cases.iter().filter(|case| case.failure.is_some()).count();
        let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "<testsuites>\n  <testsuite name=\"{}\" tests=\"{}\" failures=\"{failures}\">",
            escaped(&self.name),
            self.cases.len()
        );
        for case in &self.cases {
            let (name, place) = (escaped(&case.name), escaped(&case.place));
            let _ = match &case.failure {
                None => writeln!(out, "    <testcase name=\"{name}\" classname=\"{place}\"/>"),
                Some(why) => writeln!(
                    out,
                    "    <testcase name=\"{name}\" classname=\"{place}\"><failure message=\"{}\"/></testcase>",
                    escaped(why)
                ),
            };
        }
        out + "  </testsuite>\n</testsuites>\n"
    }
}

/// Text as the value of an attribute. Characters that XML cannot have at all are shown by their number.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_name_ends_the_attribute() {
        let case = Case { name: "a\"><x/>&\u{1}".into(), place: "t:1".into(), failure: Some("b\nc".into()) };
        let xml = Suite { name: "s".into(), cases: vec![case] }.xml();
        assert!(xml.contains(r#"name="a&quot;&gt;&lt;x/&gt;&amp;\u{1}""#), "{xml}");
        assert!(xml.contains(r#"tests="1" failures="1""#) && xml.contains("b&#10;c"), "{xml}");
    }
}
