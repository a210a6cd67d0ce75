//! YAML (and JSON, which is YAML) as a tree that knows the position of each node.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::rc::Rc;

use granit_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::Finding;

/// Most nodes, with aliases counted as everything that they stand for: a short file cannot become a large one.
const MAX_NODES: usize = 20_000;
/// Nesting at most.
const MAX_DEPTH: usize = 32;

/// Line and column, both from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Place {
    pub(super) fn says(self, message: impl Into<String>) -> Finding {
        Finding { line: self.line.max(1), column: self.column.max(1), message: message.into() }
    }
}

/// A node of the tree.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// What a node is.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// Text; `plain` when it was not quoted.
    Text { text: String, plain: bool },
    /// A list.
    List(Rc<Vec<Node>>),
    /// A map, in the order of the file; keys are unique.
    Map(Rc<Vec<(Node, String, Node)>>),
}

/// Parses one document; `None` if there is none.
pub(super) fn read(text: &str) -> Result<Option<Node>, Finding> {
    let mut builder = Builder { parser: Parser::new_from_str(text), anchors: BTreeMap::new(), nodes: 0 };
    let mut document = None;
    loop {
        let (event, span) = builder.next()?;
        match event {
            Event::StreamStart | Event::DocumentEnd => {}
            Event::DocumentStart(..) if document.is_some() => {
                return Err(place(&span).says("a second document begins here: put everything into one"));
            }
            Event::DocumentStart(..) => {
                let (event, span) = builder.next()?;
                document = Some(builder.node(event, span, 0)?);
            }
            Event::StreamEnd => return Ok(document),
            _ => return Err(place(&span).says("this is not expected here")),
        }
    }
}

struct Builder<'a> {
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    /// Nodes with anchors, and how many nodes each stands for.
    anchors: BTreeMap<usize, (Node, usize)>,
    nodes: usize,
}

fn place(span: &Span) -> Place {
    Place { line: span.start.line(), column: span.start.col() + 1 }
}

impl<'a> Builder<'a> {
    /// The next event that is not a comment.
    fn next(&mut self) -> Result<(Event<'a>, Span), Finding> {
        loop {
            match self.parser.next_event() {
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok(next)) => return Ok(next),
                Some(Err(error)) => {
                    let at = Place { line: error.marker().line(), column: error.marker().col() + 1 };
                    return Err(at.says(format!("this is not YAML: {}", error.info())));
                }
                None => return Err(Place::default().says("the file ends too early")),
            }
        }
    }

    fn count(&mut self, nodes: usize, at: Place) -> Result<(), Finding> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES { Err(at.says("the file is too large")) } else { Ok(()) }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Finding> {
        let at = place(&span);
        if depth > MAX_DEPTH {
            return Err(at.says(format!("this is nested deeper than {MAX_DEPTH} levels")));
        }
        let before = self.nodes;
        self.count(1, at)?;
        let (anchor, value) = match event {
            Event::Alias(id) => {
                let Some((node, size)) = self.anchors.get(&id).cloned() else {
                    return Err(at.says("this alias stands for nothing"));
                };
                self.count(size, at)?;
                return Ok(Node { place: at, value: node.value });
            }
            Event::Scalar(text, style, anchor, tag) => {
                let tag = tag.as_deref();
                if tag.is_some_and(Tag::is_custom) {
                    return Err(at.says("tags are not understood here"));
                }
                // `!!str` says of a plain text what quotes would.
                let style =
                    if tag.is_some_and(|tag| tag.parts().1 == "str") { ScalarStyle::DoubleQuoted } else { style };
                (anchor, scalar(text, style))
            }
            Event::SequenceStart(_, anchor, _) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        (event, span) => items.push(self.node(event, span, depth + 1)?),
                    }
                }
                (anchor, Value::List(Rc::new(items)))
            }
            Event::MappingStart(_, anchor, _) => (anchor, Value::Map(Rc::new(self.map(depth)?))),
            _ => return Err(at.says("this is not expected here")),
        };
        let node = Node { place: at, value };
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), self.nodes - before));
        }
        Ok(node)
    }

    fn map(&mut self, depth: usize) -> Result<Vec<(Node, String, Node)>, Finding> {
        let mut entries: Vec<(Node, String, Node)> = Vec::new();
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                for (key, text, value) in merged {
                    if !entries.iter().any(|(_, other, _)| *other == text) {
                        entries.push((key, text, value));
                    }
                }
                return Ok(entries);
            }
            let key = self.node(event, span, depth + 1)?;
            let Value::Text { text, plain } = &key.value else {
                return Err(key.place.says("a key must be text"));
            };
            if *plain && text == "<<" {
                let (event, span) = self.next()?;
                merge(&self.node(event, span, depth + 1)?, &mut merged)?;
                continue;
            }
            let text = text.clone();
            if entries.iter().any(|(_, other, _)| *other == text) {
                return Err(key.place.says(format!("the key {text:?} is here for the second time")));
            }
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            entries.push((key, text, value));
        }
    }
}

/// What `<<: *anchor` or `<<: [*a, *b]` adds to a map (YAML's merge key): the map's own keys win, then the first map that has the key.
fn merge(node: &Node, merged: &mut Vec<(Node, String, Node)>) -> Result<(), Finding> {
    match &node.value {
        Value::Map(entries) => merged.extend(entries.iter().cloned()),
        Value::List(items) if items.iter().all(|item| matches!(item.value, Value::Map(_))) => {
            for item in items.iter() {
                merge(item, merged)?;
            }
        }
        _ => return Err(node.place.says("<< takes in another map: give an alias such as *name, or a list of them")),
    }
    Ok(())
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle) -> Value {
    let plain = style == ScalarStyle::Plain;
    if plain && matches!(text.as_ref(), "" | "~" | "null" | "Null" | "NULL") {
        Value::Null
    } else {
        Value::Text { text: text.into_owned(), plain }
    }
}
