//! How actors talk: envelopes, mailboxes that report delivery, and clocks.
