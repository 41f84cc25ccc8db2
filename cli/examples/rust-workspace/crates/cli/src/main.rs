//! Prints the stock as JSON.
use inventory_core::{Item, stamp};

fn main() {
    let items = [Item::new("nut", 40), Item::new("bolt", 12)];
    match serde_json::to_string(&items) {
        Ok(text) => println!("{text} {} {}", Item::describe(), stamp()),
        Err(error) => eprintln!("inventory: {error}"),
    }
}
