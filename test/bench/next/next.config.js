// As `next start` comes, less what a server does not serve.
module.exports = { poweredByHeader: false };
