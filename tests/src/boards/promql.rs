//! As much of Prometheus' language as the checks of rules and dashboards need; `promtool` parses the rest.

/// `name{label="value"}`, or a name alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    pub metric: String,
    /// Label, operator, value.
    pub matchers: Vec<(String, String, String)>,
}

fn part(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

/// The expression without what stands in quotes: blanks instead, so that places stay.
fn unquoted(expr: &str) -> String {
    let mut quote = None;
    let mut escaped = false;
    let blank = |c: char| {
        let within = quote.is_some();
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(end), c) if c == end => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            _ => {}
        }
        if within && quote.is_some() { ' ' } else { c }
    };
    expr.chars().map(blank).collect()
}

/// Selectors of metrics that begin with one of the words.
pub fn selectors(expr: &str, words: &[&str]) -> Vec<Selector> {
    let bare = unquoted(expr);
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = bare[at..].find(part).map(|start| at + start) {
        let end = bare[start..]
            .find(|c| !part(c))
            .map_or(bare.len(), |length| start + length);
        at = end;
        let word = &expr[start..end];
        if !words.iter().any(|begin| word.starts_with(begin)) {
            continue;
        }
        let matchers = match bare[end..].strip_prefix('{').and_then(|rest| rest.find('}')) {
            Some(length) => {
                at = end + 1 + length;
                matchers(&expr[end + 1..at], &bare[end + 1..at])
            }
            None => Vec::new(),
        };
        found.push(Selector {
            metric: word.to_owned(),
            matchers,
        });
    }
    found
}

fn matchers(text: &str, bare: &str) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    let mut from = 0;
    for piece in bare.split(',') {
        let matcher = &text[from..from + piece.len()];
        from += piece.len() + 1;
        let Some(operator) = piece.find(['=', '!']) else {
            continue;
        };
        let value = piece[operator..]
            .find('"')
            .map_or(piece.len(), |value| operator + value);
        found.push((
            matcher[..operator].trim().to_owned(),
            matcher[operator..value].trim().to_owned(),
            matcher[value..].trim().trim_matches('"').to_owned(),
        ));
    }
    found
}

/// What stands in square brackets: ranges.
pub fn ranges(expr: &str) -> Vec<String> {
    let bare = unquoted(expr);
    let pieces = bare.split('[').skip(1);
    pieces
        .filter_map(|piece| Some(piece.split_once(']')?.0.to_owned()))
        .collect()
}

/// Labels that the outermost aggregation keeps; none: there is no aggregation by labels.
pub fn by(expr: &str) -> Option<Vec<String>> {
    let bare = unquoted(expr);
    let labels = bare.split_once("by (")?.1.split_once(')')?.0;
    Some(labels.split(',').map(|label| label.trim().to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_ranges_and_labels_are_found() {
        let expr = r#"sum by (le, a) (rate(m_x_bucket{n=~"$n", r!="a,{b}[1]"}[$__rate_interval])) / m_y > time() + up{a="m_z"}[5m]"#;
        let found = selectors(expr, &["m_", "up"]);
        let names: Vec<&str> = found.iter().map(|selector| selector.metric.as_str()).collect();
        assert_eq!(names, ["m_x_bucket", "m_y", "up"]);
        let matcher = |label: &str, operator: &str, value: &str| (label.into(), operator.into(), value.into());
        assert_eq!(
            found[0].matchers,
            [matcher("n", "=~", "$n"), matcher("r", "!=", "a,{b}[1]")]
        );
        assert_eq!(found[1].matchers, []);
        assert_eq!(found[2].matchers, [matcher("a", "=", "m_z")]);
        assert_eq!(ranges(expr), ["$__rate_interval", "5m"]);
        assert_eq!(by(expr), Some(vec!["le".into(), "a".into()]));
        assert_eq!(by("sum(x)"), None);
    }
}
