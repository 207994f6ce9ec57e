"""Speed and score benchmarks. They write raw tables under --out; the tables that are quoted lie in results/."""
