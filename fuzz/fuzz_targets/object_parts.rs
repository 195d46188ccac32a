#![no_main]

soma_fuzz::target!("object_parts");
