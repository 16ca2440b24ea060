"""What happens after a failure: rules as data, decisions as pure functions of them."""
