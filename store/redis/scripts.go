package redis

import "github.com/redis/rueidis"

// The table of versions is one sorted set: the score of a member is a version, and
// the member an effect, as a digit, and a tag. What else there is to know of the
// table are members, too, that have the digit 0. So the table is there as a whole or
// not at all, whatever an administrator, an eviction or a failover does to it.
//
//	0top            the newest version
//	0born           the version at which the table was made: nothing is known of what was before
//	0floor1 to 3    the newest version of what was forgotten, by effect
//
// Versions are microseconds, at least: as numbers of Lua, and as scores, which are
// doubles, they are exact until the year 2255.
//
// All of these scripts begin like this. They are never read-only ones: a client may
// send those to replicas, which lag behind.
const table = `
local versions = KEYS[1]
local function exact(version) return string.format('%.0f', version) end
local function score(member) return tonumber(redis.call('ZSCORE', versions, member) or 0) end

-- A write that changes nothing, so that only a server answers which could also take
-- an invalidation: no replica, and no primary that has lost the replicas it must have.
redis.call('PERSIST', versions)

local now = redis.call('TIME')
now = now[1] * 1000000 + now[2]

-- Where the table is lost, or where it went back behind what the caller has seen of
-- it, the order goes on with a new one.
local top, seen = score('0top'), tonumber(ARGV[1])
if top == 0 or top < seen then
	top = math.max(now, top, seen) + 1
	redis.call('DEL', versions)
	redis.call('ZADD', versions, exact(top), '0top', exact(top), '0born')
end
`

// effect is a function: the effect on what has a version and tags, which are those of a
// list from an index on; or 4 where the table does not reach back to the version.
const effect = `
local function effect(version, tags, from)
	if version < score('0born') or version > top then
		return 4
	end
	for effect = 3, 1, -1 do
		if version == top then
			break
		end
		if score('0floor' .. effect) > version then
			return effect
		end
		for first = from, #tags, 1000 do -- unpack has its limits
			local members = {}
			for i = first, math.min(first + 999, #tags) do
				members[#members + 1] = effect .. tags[i]
			end
			for _, v in ipairs(redis.call('ZMSCORE', versions, unpack(members))) do
				if v and tonumber(v) > version then
					return effect
				end
			end
		end
	end
	return 0
end
`

// judge returns the newest version, and the effect on what has a version (ARGV[2])
// and tags (the rest), or that the table does not reach back to it.
var judge = rueidis.NewLuaScript(table + effect + `
return {top, effect(tonumber(ARGV[2]), ARGV, 3)}
`)

// lost is the effect where it is not known.
const lost = 4

// invalidate returns a new version, which has an effect (ARGV[3]) on tags (from
// ARGV[5] on), forgets the oldest where there are more than a number (ARGV[2]), and
// tells a channel (ARGV[4]).
var invalidate = rueidis.NewLuaScript(table + `
top = math.max(now, top + 1)
local version = exact(top)
for first = 5, #ARGV, 1000 do
	local members = {}
	for i = first, math.min(first + 999, #ARGV) do
		members[#members + 1] = version
		members[#members + 1] = ARGV[3] .. ARGV[i]
	end
	redis.call('ZADD', versions, unpack(members))
end
redis.call('ZADD', versions, version, '0top')

-- Five members are not tags, and four of them can be among the oldest. What is of
-- the newest version stays, or everything would count as invalidated.
local excess = redis.call('ZCARD', versions) - 5 - ARGV[2]
if excess > 0 then
	local oldest = redis.call('ZRANGE', versions, 0, excess + 3, 'WITHSCORES')
	local forgotten, floors = {}, {}
	for i = 1, #oldest, 2 do
		local effect = string.sub(oldest[i], 1, 1)
		if effect ~= '0' and #forgotten < excess and tonumber(oldest[i + 1]) < top then
			forgotten[#forgotten + 1] = oldest[i]
			floors['0floor' .. effect] = oldest[i + 1]
		end
	end
	for first = 1, #forgotten, 1000 do
		redis.call('ZREM', versions, unpack(forgotten, first, math.min(first + 999, #forgotten)))
	end
	for floor, v in pairs(floors) do
		redis.call('ZADD', versions, v, floor)
	end
end

-- Only a hint: who may not publish invalidates all the same.
redis.pcall('PUBLISH', ARGV[4], version)
return {top}
`)

// changes returns the newest version, the one up to which the list is complete,
// whether the history is unknown, the list of what came after a version (ARGV[2]):
// some more than a number (ARGV[3]), so that none of it is cut in two; the name of the
// history, and what was forgotten, by effect. The history is another one where the process
// is, or was a replica when the last one ended: either may have lost something. Who may
// not ask for that knows the table alone.
var changes = rueidis.NewLuaScript(table + `
local history = exact(score('0born'))
for section, field in pairs({server = 'run_id', replication = 'master_replid'}) do
	local info = redis.pcall('INFO', section)
	history = history .. ' ' .. (type(info) == 'string' and string.match(info, field .. ':(%x+)') or '')
end
local floors = {exact(score('0floor1')), exact(score('0floor2')), exact(score('0floor3'))}
local after, reset = tonumber(ARGV[2]), 0
for _, member in ipairs({'0born', '0floor1', '0floor2', '0floor3'}) do
	if after < score(member) then
		reset = 1
	end
end
if after >= top then
	return {top, top, after > top and 1 or reset, {}, history, unpack(floors)}
end
local upto, after = top, '(' .. exact(after)
local last = redis.call('ZRANGEBYSCORE', versions, after, '+inf', 'WITHSCORES', 'LIMIT', ARGV[3], 1)
if last[2] then
	upto = tonumber(last[2])
end
return {top, upto, reset, redis.call('ZRANGEBYSCORE', versions, after, exact(upto), 'WITHSCORES'), history, unpack(floors)}
`)

// A record is a string: its version and its fence, each in twenty digits, which
// compare as strings since they may be more than a double can hold, and its encoding.
// Its lease and the last fence of its key have keys of their own, in the same slot.

// page are functions for a page's keys: of its record, its lease, and its last fence.
//
// Stored returns the record, or false, and its tags. What cannot be read as one is none; it
// is the client that looks at the checksum.
//
// Lead takes the lease for a token and a time, if it is free, and returns a fence and
// whether it was. Fences are microseconds, too: so they grow even where the last one is
// forgotten. It is remembered for a time, beside that of the record, for clocks that go
// back. Where the server has no room for leases everybody leads.
const page = `
local function stored(key)
	local value = redis.pcall('GET', key)
	if type(value) ~= 'string' or string.find(string.sub(value, 1, 40), '%D') or string.sub(value, 41, 44) ~= 'isr\1' then
		return false
	end
	local at = 49
	local function number()
		local n, unit = 0, 1
		repeat
			local byte = string.byte(value, at)
			if not byte then
				return 1 / 0
			end
			n, unit, at = n + byte % 128 * unit, unit * 128, at + 1
		until byte < 128
		return n
	end
	number() number() number()
	local tags, count = {}, number()
	for i = 1, count do
		local length = number()
		if at + length - 1 > #value then
			return false
		end
		tags[i] = string.sub(value, at, at + length - 1)
		at = at + length
	end
	return value, tags
end

local function lead(record, lease, last, token, ttl, remembered)
	local now = redis.call('TIME')
	local fence = now[1] * 1000000 + now[2]
	local function after(last)
		last = tonumber(last)
		if last and last >= fence then
			fence = last + 1
		end
	end
	after(redis.pcall('GET', last))
	after(redis.pcall('GETRANGE', record, 20, 39))
	local reply = redis.pcall('SET', last, string.format('%.0f', fence), 'PX', remembered)
	if not reply.err then
		reply = redis.pcall('SET', lease, token, 'NX', 'PX', ttl)
	end
	if reply and reply.err and not string.find(reply.err, 'OOM', 1, true) then
		error(reply.err)
	end
	return fence, reply and 1 or 0
end
`

// look returns the newest version, the effect on the record (KEYS[2]), the fence of a
// ticket, whether it leads, and the record. There is no record where the effect is 3 or
// more; and no ticket, with a fence of 0, where the record is newer than what the caller has
// (ARGV[2]) and the effect is less than 2, or where no time is given for the lease (KEYS[3],
// ARGV[4], of the token ARGV[3]). The last fence (KEYS[4]) is remembered for a time (ARGV[5]).
var look = rueidis.NewLuaScript(table + effect + page + `
local value, tags = stored(KEYS[2])
local verdict = 4
if value then
	verdict = effect(tonumber(string.sub(value, 1, 20)), tags, 1)
end
value = verdict < 3 and value
local fence, leads = 0, 0
if ARGV[4] ~= '0' and not (value and verdict < 2 and string.sub(value, 1, 40) > ARGV[2]) then
	fence, leads = lead(KEYS[2], KEYS[3], KEYS[4], ARGV[3], ARGV[4], ARGV[5])
end
return {top, verdict, fence, leads, value}
`)

// lookOrLead is what can be known of that in a cluster, where the table is elsewhere: the
// fence, whether it leads, and the record. There is a ticket if none is stored that is newer
// than what the caller has. The keys and arguments are those of look, less the first.
var lookOrLead = rueidis.NewLuaScript(page + `
local value = stored(KEYS[1])
local fence, leads = 0, 0
if ARGV[3] ~= '0' and not (value and string.sub(value, 1, 40) > ARGV[1]) then
	fence, leads = lead(KEYS[1], KEYS[2], KEYS[3], ARGV[2], ARGV[3], ARGV[4])
end
return {fence, leads, value}
`)

// put stores a record (KEYS[1], ARGV[2]) for a time (ARGV[3]) unless there is a newer
// one, and gives back the lease (KEYS[2]) of a token (ARGV[1]). What is no record is
// overwritten. The lease comes last: a full server refuses nothing to a script that
// has written already.
var put = rueidis.NewLuaScript(`
local old = redis.pcall('GETRANGE', KEYS[1], 0, 39)
local reply = {0}
if type(old) ~= 'string' or #old ~= 40 or string.find(old, '%D') or old <= string.sub(ARGV[2], 1, 40) then
	reply = redis.pcall('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
	if not reply.err then
		reply = {1}
	end
end
if redis.pcall('GET', KEYS[2]) == ARGV[1] then
	redis.call('DEL', KEYS[2])
end
return reply
`)

// end gives back the lease (KEYS[1]) of a token (ARGV[1]).
var end = rueidis.NewLuaScript(`
if redis.pcall('GET', KEYS[1]) == ARGV[1] then
	redis.call('DEL', KEYS[1])
end
return {1}
`)
