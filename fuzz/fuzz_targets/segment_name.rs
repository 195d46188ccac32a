#![no_main]

soma_fuzz::target!("segment_name");
