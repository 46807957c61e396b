"""The engines behind the contract, one module each. A module has `create(arguments) -> Engine`."""
