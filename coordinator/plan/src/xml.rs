//! Finds the text of each element in a `pom.xml`, and its position.

use std::ops::Range;

use roxmltree::{Document, Node, ParsingOptions};

/// An element that contains only text: its path from the root, and the position of its text.
pub struct Leaf<'a> {
    /// The names of the enclosing elements and its own, without namespaces.
    pub path: Vec<&'a str>,
    /// What is between its tags. References such as `&amp;` are not resolved.
    pub value: &'a str,
    /// Where that is, in bytes. What comes out of an entity is where the entity is declared.
    pub text: Range<usize>,
    /// The start of its parent element, the same for all leaves of one parent.
    pub parent: usize,
}

/// All elements that contain only text, in document order. Empty if the text is not well-formed XML.
pub fn leaves(text: &str) -> Vec<Leaf<'_>> {
    let options = ParsingOptions { allow_dtd: true, nodes_limit: 1_000_000, ..ParsingOptions::default() };
    let Ok(document) = Document::parse_with_options(text, options) else { return Vec::new() };
    let is_leaf = |node: &Node<'_, '_>| {
        node.is_element() && node.parent_element().is_some() && !node.children().any(|child| child.is_element())
    };
    document.descendants().filter(is_leaf).filter_map(|node| leaf(text, node)).collect()
}

fn leaf<'a>(text: &'a str, node: Node<'_, 'a>) -> Option<Leaf<'a>> {
    let range = match (node.first_child(), node.last_child()) {
        (Some(first), Some(last)) => first.range().start..last.range().end,
        // `<a></a>` contains an empty text, `<a/>` contains none.
        _ => {
            let all = node.range();
            let inside = all.start.checked_add(text.get(all.clone())?.find('>')?)?.checked_add(1)?;
            if inside == all.end {
                return None;
            }
            inside..inside
        }
    };
    // Where an element begins and ends in different declarations, there is nothing between its tags.
    let value = text.get(range.clone())?;
    let mut path: Vec<&str> = node.ancestors().filter(Node::is_element).map(|node| node.tag_name().name()).collect();
    path.reverse();
    Some(Leaf { path, value, text: range, parent: node.parent_element()?.range().start })
}

/// The text of the first element with this path.
pub fn value<'a>(text: &'a str, path: &[&str]) -> Option<&'a str> {
    leaves(text).into_iter().find(|leaf| leaf.path == path).map(|leaf| leaf.value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_entity_declares_is_found_and_what_is_torn_apart_by_one_is_not() {
        let declared = "<!DOCTYPE project [<!ENTITY note '<!-- x -->'><!ENTITY all '<name>shop</name>'>]>";
        let whole = format!("{declared}<project>&all;<version>1</version></project>");
        assert_eq!(value(&whole, &["project", "name"]), Some("shop"));
        let torn = format!("{declared}<project><version>1&note;</version><name>a</name></project>");
        assert_eq!((value(&torn, &["project", "version"]), value(&torn, &["project", "name"])), (None, Some("a")));
    }

    #[test]
    fn texts_are_found_where_they_stand_and_nothing_in_comments_is() {
        let pom = "<?xml version='1.0'?>\n<!DOCTYPE project>\n<project xmlns='http://maven.apache.org/POM/4.0.0'>\
            <!-- <version>0</version> --><name a='x > y'><![CDATA[<version>0</version>]]></name>\
            <version> 1.0 </version><empty></empty><none/><a><b>x &amp; y</b></a></project>";
        let found: Vec<(String, &str)> =
            leaves(pom).into_iter().map(|leaf| (leaf.path.join("/"), &pom[leaf.text])).collect();
        let expected = [
            ("project/name", "<![CDATA[<version>0</version>]]>"),
            ("project/version", " 1.0 "),
            ("project/empty", ""),
            ("project/a/b", "x &amp; y"),
        ];
        assert_eq!(found, expected.map(|(path, text)| (path.to_owned(), text)));
        assert_eq!(value(pom, &["project", "version"]), Some("1.0"));
    }

    #[test]
    fn what_is_not_xml_says_nothing() {
        assert_eq!(value("<project><version>1</version>", &["project", "version"]), None);
        let deep = "<a>".repeat(200_000) + &"</a>".repeat(200_000);
        assert!(leaves(&deep).len() <= 1);
        let bomb = "<!DOCTYPE a [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;'><!ENTITY c '&b;&b;&b;&b;&b;&b;'>\
            <!ENTITY d '&c;&c;&c;&c;&c;&c;'><!ENTITY e '&d;&d;&d;&d;&d;&d;'>]><a><b>&e;&e;&e;</b></a>";
        assert!(leaves(bomb).len() <= 1);
    }
}
