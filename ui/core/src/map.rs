//! Layout of the service map: callers left of callees, and room for the calls that pass a column by.

use std::collections::BTreeMap;
use trefoil_api::services::ServiceEdge;

/// A service's place: column from the left, row from the top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    pub column: usize,
    pub row: usize,
}

/// The map: services, and for each call the places that it goes through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    pub nodes: Vec<Node>,
    /// As many as edges: (column, row) from the caller to the callee. Those between the ends are free of services.
    pub routes: Vec<Vec<(usize, usize)>>,
    /// Rows of the column that has the most.
    pub rows: usize,
}

/// Rounds of putting each row close to what it is called from.
const ROUNDS: usize = 4;

/// Something in a column: a service, or a call on its way through.
#[derive(Debug, Clone)]
struct Item {
    column: usize,
    /// The service's name; `None` for a call.
    what: Option<String>,
    /// Items in other columns that a line leads to or from.
    near: Vec<usize>,
}

/// Places every service; cycles are cut where they are met.
pub fn layout(edges: &[ServiceEdge]) -> Layout {
    let columns = columns(edges);
    let mut items: Vec<Item> = columns
        .iter()
        .map(|(name, column)| Item {
            column: *column,
            what: Some((*name).to_owned()),
            near: Vec::new(),
        })
        .collect();
    let at: BTreeMap<&str, usize> =
        columns.keys().enumerate().map(|(at, name)| (*name, at)).collect();
    // The items that each call goes through.
    let mut chains: Vec<Vec<usize>> = Vec::with_capacity(edges.len());
    for edge in edges {
        let (from, to) = (at[edge.caller.as_str()], at[edge.callee.as_str()]);
        let mut chain = vec![from];
        for column in items[from].column + 1..items[to].column {
            chain.push(items.len());
            items.push(Item { column, what: None, near: Vec::new() });
        }
        chain.push(to);
        for pair in chain.windows(2) {
            items[pair[0]].near.push(pair[1]);
            items[pair[1]].near.push(pair[0]);
        }
        chains.push(chain);
    }
    let rows = rows(&items);
    let place = |item: usize| (items[item].column, rows[item]);
    let nodes = items
        .iter()
        .zip(&rows)
        .filter_map(|(item, row)| {
            let name = item.what.clone()?;
            Some(Node { name, column: item.column, row: *row })
        })
        .collect();
    Layout {
        nodes,
        routes: chains.into_iter().map(|chain| chain.into_iter().map(place).collect()).collect(),
        rows: rows.iter().max().map_or(0, |row| row + 1),
    }
}

/// Columns by service: one more than that of any caller.
fn columns(edges: &[ServiceEdge]) -> BTreeMap<&str, usize> {
    let mut columns: BTreeMap<&str, usize> = edges
        .iter()
        .flat_map(|edge| [edge.caller.as_str(), edge.callee.as_str()])
        .map(|name| (name, 0))
        .collect();
    let many = columns.len();
    // The longest path decides; as many rounds as services reach every end that is no cycle.
    for _ in 0..many {
        let mut moved = false;
        for edge in edges {
            let wanted = columns[edge.caller.as_str()] + 1;
            let column = columns.entry(edge.callee.as_str()).or_default();
            if *column < wanted && wanted < many {
                *column = wanted;
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
    columns
}

/// The row of each item within its column: sorted, again and again, by where its neighbours stand.
fn rows(items: &[Item]) -> Vec<usize> {
    let mut by_column: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (i, item) in items.iter().enumerate() {
        by_column.entry(item.column).or_default().push(i);
    }
    let mut rows = vec![0; items.len()];
    for column in by_column.values() {
        for (row, item) in column.iter().enumerate() {
            rows[*item] = row;
        }
    }
    for _ in 0..ROUNDS {
        for column in by_column.values_mut() {
            let middle = |item: &usize| {
                let near = &items[*item].near;
                let sum: usize = near.iter().map(|other| rows[*other]).sum();
                if near.is_empty() { rows[*item] as f64 } else { sum as f64 / near.len() as f64 }
            };
            let mut sorted: Vec<(f64, usize)> =
                column.iter().map(|item| (middle(item), *item)).collect();
            sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
            *column = sorted.into_iter().map(|(_, item)| item).collect();
            for (row, item) in column.iter().enumerate() {
                rows[*item] = row;
            }
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(caller: &str, callee: &str) -> ServiceEdge {
        ServiceEdge { caller: caller.into(), callee: callee.into(), ..ServiceEdge::default() }
    }

    #[test]
    fn callees_stand_right_of_their_callers_and_cycles_end() {
        let laid = layout(&[edge("a", "b"), edge("b", "c"), edge("a", "c")]);
        let column = |name: &str| laid.nodes.iter().find(|n| n.name == name).unwrap().column;
        assert_eq!((column("a"), column("b"), column("c")), (0, 1, 2));
        let cycle = layout(&[edge("x", "y"), edge("y", "x"), edge("z", "z")]);
        assert_eq!((cycle.nodes.len(), cycle.routes.len()), (3, 3));
        assert_eq!(layout(&[]), Layout::default());
    }

    #[test]
    fn a_call_passes_services_by_and_does_not_go_through_them() {
        let laid = layout(&[edge("a", "b"), edge("b", "c"), edge("a", "c")]);
        let [_, between, _] = laid.routes[2][..] else { panic!("{:?}", laid.routes[2]) };
        assert!(laid.nodes.iter().all(|node| (node.column, node.row) != between));
        assert_eq!(laid.rows, 2);
    }

    #[test]
    fn no_two_things_stand_in_one_place() {
        let names = ["a", "b", "c", "d", "e", "f"];
        let edges: Vec<ServiceEdge> = (0..names.len())
            .flat_map(|i| (i + 1..names.len()).map(move |j| edge(names[i], names[j])))
            .collect();
        let laid = layout(&edges);
        let mut places: Vec<(usize, usize)> =
            laid.nodes.iter().map(|node| (node.column, node.row)).collect();
        places.extend(laid.routes.iter().flat_map(|route| &route[1..route.len() - 1]));
        let all = places.len();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), all);
    }
}
