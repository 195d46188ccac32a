#![no_main]

soma_fuzz::target!("trace_record");
