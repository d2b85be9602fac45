-- The order of the invalidations. One row: who changes it holds its lock until the commit, so
-- that versions are issued in the order in which they can be seen.
CREATE TABLE IF NOT EXISTS isr_history (
	one    boolean PRIMARY KEY DEFAULT true CHECK (one),
	name   uuid    NOT NULL,           -- another one after a wipe
	born   bigint  NOT NULL,           -- nothing is known of what was before
	top    bigint  NOT NULL,           -- the newest version
	floors bigint[3] NOT NULL,         -- the newest of what was forgotten altogether, by effect
	past   bigint[3] NOT NULL,         -- the newest of what the filters know, by effect
	tags   bigint  NOT NULL            -- how many rows isr_versions has
);

-- The newest version of each tag and effect.
CREATE TABLE IF NOT EXISTS isr_versions (
	hash    bytea    NOT NULL,         -- of the tag, which may be longer than an index takes
	effect  smallint NOT NULL,         -- 1 stale, 2 expired, 3 gone
	version bigint   NOT NULL,
	tag     bytea    NOT NULL,
	PRIMARY KEY (hash, effect)
);
CREATE INDEX IF NOT EXISTS isr_versions_version ON isr_versions (version);

-- What isr_versions has forgotten is in Bloom filters, one for each epoch, as in package
-- filter. A filter has 256 blocks, of which a tag has one for each effect, by its hash, and
-- four bits in it.
CREATE TABLE IF NOT EXISTS isr_epochs (
	epoch  bigint    PRIMARY KEY,
	tags   bigint    NOT NULL,         -- how many its filter has
	newest bigint[3] NOT NULL          -- versions, by effect
);
CREATE TABLE IF NOT EXISTS isr_filters (
	epoch  bigint    NOT NULL,
	block  int       NOT NULL,
	bits   bit(8192) NOT NULL,
	PRIMARY KEY (epoch, block)
);

CREATE UNLOGGED TABLE IF NOT EXISTS isr_pages (
	key     bytea       PRIMARY KEY,
	version bigint      NOT NULL,
	fence   bigint      NOT NULL,
	tags    bytea[]     NOT NULL,      -- as in isr_versions
	expires timestamptz NOT NULL,
	record  bytea       NOT NULL
);
ALTER TABLE isr_pages ALTER record SET STORAGE EXTERNAL; -- the page is compressed already
CREATE INDEX IF NOT EXISTS isr_pages_expires ON isr_pages (expires);

-- Who generates a page, and the last fence of its key. What is over stays for an hour, for
-- clocks that go back.
CREATE UNLOGGED TABLE IF NOT EXISTS isr_leases (
	key   bytea       PRIMARY KEY,
	fence bigint      NOT NULL,
	token text        NOT NULL,
	until timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS isr_leases_until ON isr_leases (until);

CREATE OR REPLACE FUNCTION isr_now() RETURNS bigint LANGUAGE sql VOLATILE AS
	$$ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint $$;

-- isr_current returns the history. Where it is lost, or went back behind what the caller has
-- seen of it, another one begins.
CREATE OR REPLACE FUNCTION isr_current(seen bigint) RETURNS isr_history LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	h isr_history;
	v bigint;
BEGIN
	SELECT * INTO h FROM isr_history;
	IF FOUND AND h.top >= seen THEN
		RETURN h;
	END IF;
	LOCK TABLE isr_history IN EXCLUSIVE MODE;
	SELECT * INTO h FROM isr_history;
	IF FOUND AND h.top >= seen THEN
		RETURN h;
	END IF;
	v := greatest(isr_now(), seen, coalesce(h.top, 0)) + 1;
	DELETE FROM isr_versions;
	DELETE FROM isr_epochs;
	DELETE FROM isr_filters;
	DELETE FROM isr_history;
	INSERT INTO isr_history VALUES (true, gen_random_uuid(), v, v, '{0,0,0}', '{0,0,0}', 0) RETURNING * INTO h;
	RETURN h;
END $$;

-- isr_block and isr_bit return the block of a tag with an effect, and four bits in it.
CREATE OR REPLACE FUNCTION isr_block(hash bytea, e int) RETURNS int LANGUAGE sql IMMUTABLE AS
	$$ SELECT get_byte(hash, 9 * e - 9) $$;
CREATE OR REPLACE FUNCTION isr_bit(hash bytea, e int, i int) RETURNS int LANGUAGE sql IMMUTABLE AS
	$$ SELECT ((get_byte(hash, 9 * e - 8 + 2 * i) << 8) | get_byte(hash, 9 * e - 7 + 2 * i)) & 8191 $$;

-- isr_effect returns the effect on what has a version and tags: 4 where it is not known.
CREATE OR REPLACE FUNCTION isr_effect(h isr_history, v bigint, hashes bytea[]) RETURNS int LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	strongest int;
	x isr_epochs;
BEGIN
	IF v < h.born OR v > h.top THEN
		RETURN 4;
	END IF;
	SELECT coalesce(max(effect), 0) INTO strongest FROM isr_versions WHERE hash = ANY (hashes) AND version > v;
	FOR e IN 1..3 LOOP
		IF h.floors[e] > v THEN
			strongest := greatest(strongest, e);
		END IF;
	END LOOP;
	IF v < greatest(h.past[1], h.past[2], h.past[3]) THEN
		FOR x IN SELECT * FROM isr_epochs LOOP
			FOR e IN REVERSE 3..strongest + 1 LOOP
				CONTINUE WHEN x.newest[e] <= v;
				PERFORM FROM unnest(hashes) AS t(hash) WHERE coalesce((
					SELECT get_bit(f.bits, isr_bit(t.hash, e, 0)) & get_bit(f.bits, isr_bit(t.hash, e, 1)) &
						get_bit(f.bits, isr_bit(t.hash, e, 2)) & get_bit(f.bits, isr_bit(t.hash, e, 3))
					FROM isr_filters f WHERE f.epoch = x.epoch AND f.block = isr_block(t.hash, e)), 1) = 1; -- one that is lost knows each tag
				IF FOUND THEN
					strongest := e;
					EXIT;
				END IF;
			END LOOP;
		END LOOP;
	END IF;
	RETURN strongest;
END $$;

-- isr_look returns what is stored under a key, and a ticket if that will not do: none where
-- fence is 0. The record is read before what was invalidated, which so is never older. Who
-- asks for the lease holds the lock of its row, and looks again under it.
CREATE OR REPLACE FUNCTION isr_look(seen bigint, k bytea, have_version bigint, have_fence bigint, wanted text, life interval,
	OUT top bigint, OUT verdict int, OUT fence bigint, OUT leads boolean, OUT record bytea) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	p isr_pages;
	h isr_history;
	won text;
BEGIN
	fence := 0;
	leads := false;
	LOOP
		SELECT * INTO p FROM isr_pages WHERE key = k AND expires > clock_timestamp();
		verdict := 4;
		record := NULL;
		h := isr_current(seen);
		top := h.top;
		IF p.key IS NOT NULL THEN
			verdict := isr_effect(h, p.version, p.tags);
			IF verdict < 3 THEN
				record := p.record;
			END IF;
		END IF;
		EXIT WHEN wanted = '';
		IF verdict < 2 AND (p.version, p.fence) > (have_version, have_fence) THEN
			IF leads THEN
				UPDATE isr_leases l SET until = clock_timestamp() WHERE l.key = k;
			END IF;
			fence := 0;
			leads := false;
			EXIT;
		END IF;
		EXIT WHEN fence > 0;
		INSERT INTO isr_leases AS l VALUES (k, greatest(isr_now(), coalesce(p.fence, 0) + 1), wanted, clock_timestamp() + life)
		ON CONFLICT (key) DO UPDATE SET
			fence = greatest(excluded.fence, l.fence + 1),
			token = CASE WHEN l.until <= clock_timestamp() THEN excluded.token ELSE l.token END,
			until = CASE WHEN l.until <= clock_timestamp() THEN clock_timestamp() + life ELSE l.until END
		RETURNING l.fence, l.token INTO fence, won;
		leads := won = wanted;
	END LOOP;
END $$;

-- isr_put stores a record, if it is the newest, gives back the lease, and forgets a few of
-- those that are over. It returns whether the record is stored.
CREATE OR REPLACE FUNCTION isr_put(seen bigint, k bytea, v bigint, f bigint, hashes bytea[], life interval, rec bytea, held text,
	OUT top bigint, OUT stored boolean) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	h isr_history;
	moment timestamptz := clock_timestamp(); -- an index is not searched for what may change meanwhile
BEGIN
	h := isr_current(seen);
	top := h.top;
	stored := false;
	IF v BETWEEN h.born AND h.top THEN
		INSERT INTO isr_pages AS p VALUES (k, v, f, hashes, clock_timestamp() + life, rec)
		ON CONFLICT (key) DO UPDATE SET version = v, fence = f, tags = hashes, expires = excluded.expires, record = rec
		WHERE (p.version, p.fence) <= (v, f);
		stored := FOUND;
	END IF;
	PERFORM isr_end(k, held);
	DELETE FROM isr_pages WHERE key IN (
		SELECT key FROM isr_pages WHERE expires < moment ORDER BY expires LIMIT 8 FOR UPDATE SKIP LOCKED);
	DELETE FROM isr_leases WHERE key IN (
		SELECT key FROM isr_leases WHERE until < moment - interval '1 hour' ORDER BY until LIMIT 8 FOR UPDATE SKIP LOCKED);
END $$;

CREATE OR REPLACE FUNCTION isr_end(k bytea, held text) RETURNS void LANGUAGE sql VOLATILE AS
	$$ UPDATE isr_leases SET until = clock_timestamp() WHERE key = k AND token = held AND until > clock_timestamp() $$;

-- isr_invalidate returns a new version, which has an effect on tags. Where there are more
-- than a number, it forgets some of the oldest, but nothing that is more recent than a time in
-- microseconds. It does so for several invalidations at a time, since each changes most blocks
-- of a filter. A filter takes as many as are given by part, and some more.
CREATE OR REPLACE FUNCTION isr_invalidate(seen bigint, e int, hashes bytea[], names bytea[], most bigint, part bigint, recent bigint)
	RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	h isr_history;
	v bigint;
	added bigint;
	old bigint; -- what is older may be forgotten
	x isr_epochs;
	dropped isr_epochs;
	forgotten record;
	known bit(8192);
	sum bytea;
BEGIN
	PERFORM isr_current(seen);
	SELECT * INTO STRICT h FROM isr_history FOR UPDATE;
	v := greatest(isr_now(), h.top + 1);
	WITH changed AS (
		INSERT INTO isr_versions
		SELECT DISTINCT ON (t.hash) t.hash, e, v, t.name FROM unnest(hashes, names) AS t(hash, name)
		ON CONFLICT (hash, effect) DO UPDATE SET version = v
		RETURNING xmax = 0 AS new
	) SELECT count(*) FILTER (WHERE new) INTO added FROM changed;
	h.tags := h.tags + added;
	old := least(v, isr_now() - recent);
	IF h.tags > most + most / 256 THEN
		SELECT * INTO x FROM isr_epochs ORDER BY epoch DESC LIMIT 1;
		IF NOT FOUND OR x.tags >= part THEN
			x := (coalesce(x.epoch, 0) + 1, 0, '{0,0,0}');
			INSERT INTO isr_epochs VALUES (x.epoch, x.tags, x.newest);
			INSERT INTO isr_filters SELECT x.epoch, block, repeat('0', 8192)::bit(8192) FROM generate_series(0, 255) AS block;
			FOR dropped IN DELETE FROM isr_epochs WHERE epoch <= x.epoch - 16 RETURNING * LOOP
				FOR i IN 1..3 LOOP
					h.floors[i] := greatest(h.floors[i], dropped.newest[i]);
				END LOOP;
				DELETE FROM isr_filters WHERE epoch = dropped.epoch;
			END LOOP;
		END IF;
		FOR forgotten IN
			WITH oldest AS (
				DELETE FROM isr_versions WHERE (hash, effect) IN (
					SELECT o.hash, o.effect FROM isr_versions o WHERE o.version < old
					ORDER BY o.version LIMIT least(h.tags - most, 4000))
				RETURNING hash, effect, version
			) SELECT effect, isr_block(hash, effect::int) AS block, max(version) AS newest, count(*) AS n, array_agg(hash) AS hashes
			FROM oldest GROUP BY 1, 2
		LOOP
			SELECT bits INTO known FROM isr_filters WHERE epoch = x.epoch AND block = forgotten.block;
			FOREACH sum IN ARRAY forgotten.hashes LOOP
				FOR i IN 0..3 LOOP
					known := set_bit(known, isr_bit(sum, forgotten.effect::int, i), 1);
				END LOOP;
			END LOOP;
			UPDATE isr_filters SET bits = known WHERE epoch = x.epoch AND block = forgotten.block;
			x.tags := x.tags + forgotten.n;
			x.newest[forgotten.effect] := greatest(x.newest[forgotten.effect], forgotten.newest);
			h.past[forgotten.effect] := greatest(h.past[forgotten.effect], forgotten.newest);
			h.tags := h.tags - forgotten.n;
		END LOOP;
		UPDATE isr_epochs SET tags = x.tags, newest = x.newest WHERE epoch = x.epoch;
	END IF;
	UPDATE isr_history SET top = v, floors = h.floors, past = h.past, tags = h.tags;
	PERFORM pg_notify('isr_versions', '');
	RETURN v;
END $$;

-- isr_changes returns what was invalidated after a version: some more than a number, so that
-- none of it is cut in two. The history's name has that of the server's timeline in it, which
-- is another one after a failover or a restore. All is of one snapshot.
CREATE OR REPLACE FUNCTION isr_changes(seen bigint, after bigint, most int,
	OUT top bigint, OUT upto bigint, OUT reset boolean, OUT history text, OUT forgotten bigint[],
	OUT effects smallint[], OUT versions bigint[], OUT tags bytea[]) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
	PERFORM isr_current(seen);
	WITH last AS (
		SELECT version FROM isr_versions WHERE version > after ORDER BY version OFFSET most LIMIT 1
	), list AS (
		SELECT l.effect, l.version, l.tag FROM isr_versions l
		WHERE l.version > after AND l.version <= coalesce((SELECT version FROM last), 9223372036854775807)
	)
	SELECT h.top, coalesce((SELECT version FROM last), h.top),
		after < h.born OR after > h.top OR after < greatest(h.floors[1], h.floors[2], h.floors[3], h.past[1], h.past[2], h.past[3]),
		h.name || ' ' || left(pg_walfile_name(pg_current_wal_lsn()), 8),
		ARRAY[greatest(h.floors[1], h.past[1]), greatest(h.floors[2], h.past[2]), greatest(h.floors[3], h.past[3])],
		(SELECT array_agg(effect ORDER BY version) FROM list),
		(SELECT array_agg(version ORDER BY version) FROM list),
		(SELECT array_agg(tag ORDER BY version) FROM list)
	INTO top, upto, reset, history, forgotten, effects, versions, tags
	FROM isr_history h;
END $$;
