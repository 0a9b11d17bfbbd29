//! Layout of the service map: callers left of callees.

use std::collections::{BTreeMap, BTreeSet};
use trefoil_api::services::ServiceEdge;

/// A service's place: column from the left, row from the top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    pub column: usize,
    pub row: usize,
}

/// Places every service; cycles are cut where they are met.
pub fn layout(services: &[String], edges: &[ServiceEdge]) -> Vec<Node> {
    let names: BTreeSet<&str> = services
        .iter()
        .map(String::as_str)
        .chain(edges.iter().flat_map(|e| [e.caller.as_str(), e.callee.as_str()]))
        .collect();
    let mut columns: BTreeMap<&str, usize> = names.iter().map(|name| (*name, 0)).collect();
    // The longest path decides; as many rounds as services reach every end that is no cycle.
    for _ in 0..names.len() {
        let mut moved = false;
        for edge in edges {
            let wanted = columns[edge.caller.as_str()] + 1;
            let column = columns.get_mut(edge.callee.as_str()).expect("every callee has a place");
            if *column < wanted && wanted < names.len() {
                *column = wanted;
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
    let mut rows: BTreeMap<usize, usize> = BTreeMap::new();
    columns
        .into_iter()
        .map(|(name, column)| {
            let row = rows.entry(column).or_default();
            *row += 1;
            Node { name: name.to_owned(), column, row: *row - 1 }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(caller: &str, callee: &str) -> ServiceEdge {
        ServiceEdge { caller: caller.into(), callee: callee.into(), ..ServiceEdge::default() }
    }

    #[test]
    fn callees_stand_right_of_their_callers_and_cycles_end() {
        let edges = [edge("a", "b"), edge("b", "c"), edge("a", "c")];
        let nodes = layout(&["d".into()], &edges);
        let column = |name: &str| nodes.iter().find(|n| n.name == name).unwrap().column;
        assert_eq!((column("a"), column("b"), column("c"), column("d")), (0, 1, 2, 0));
        assert_eq!(layout(&[], &[edge("x", "y"), edge("y", "x")]).len(), 2);
    }
}
