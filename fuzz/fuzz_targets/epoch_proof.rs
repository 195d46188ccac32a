#![no_main]

soma_fuzz::target!("epoch_proof");
