//! Every endpoint and every bad input, over real TLS on loopback, with a desk in memory.
