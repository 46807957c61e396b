"""The engines that fulfil the contract. The module of an engine has `create(arguments) -> Engine`."""
