#![no_main]

soma_fuzz::target!("tls_certificate");
