require('there-is-no-such-module'); exports.handler = async () => 1;
