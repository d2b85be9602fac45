vcl 4.1;

# Varnish in front of a program with an isr Site that has varnish.New as its Edge.
# Debian: apt-get install varnish varnish-modules

import std;
import xkey;

# The program.
backend default {
	.host = "127.0.0.1";
	.port = "8080";
}

# Who may tell: where the program runs.
acl isr {
	"127.0.0.1";
	"::1";
}

sub vcl_recv {
	if (req.method == "PURGE") {
		if (client.ip !~ isr) {
			return (synth(403, "This address may not purge"));
		}
		# If other programs run at those addresses, too, with varnish.Options.Secret:
		# if (req.http.Isr-Secret != "change me") {
		#	return (synth(403, "Wrong secret"));
		# }
		if (req.http.Isr-Soft) {
			set req.http.Isr-Told = xkey.softpurge(req.http.Isr-Tags);
		} else {
			set req.http.Isr-Told = xkey.purge(req.http.Isr-Tags);
		}
		return (synth(200, "Told"));
	}
	unset req.http.Isr-Told;

	# Varnish caches nothing for visitors with cookies. The pages of a Site depend on no
	# cookie that their route does not declare, so take them away, but where they are
	# read: here in /account and in what Route.VaryCookies names.
	# if (req.url !~ "^/account") {
	#	unset req.http.Cookie;
	# }
}

sub vcl_synth {
	if (req.method == "PURGE" && resp.status == 200) {
		set resp.http.Isr-Told = req.http.Isr-Told;
	}
}

sub vcl_backend_response {
	# The lifetime that is for this Varnish alone.
	if (beresp.http.Surrogate-Control ~ "max-age=[0-9]+") {
		set beresp.ttl = std.duration(regsub(beresp.http.Surrogate-Control, "^.*max-age=([0-9]+).*$", "\1s"), 0s)
			- std.duration(beresp.http.Age + "s", 0s);
	}
	unset beresp.http.Surrogate-Control;

	# How long after its time a page is shown while a new one is asked for. What has been
	# purged is gone, whatever this says.
	set beresp.grace = 10s;
}

sub vcl_deliver {
	unset resp.http.xkey;
}
