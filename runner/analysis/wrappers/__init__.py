"""Commands that run commands: what is behind them."""
