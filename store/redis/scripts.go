package redis

import (
	"strconv"

	"github.com/redis/rueidis"
)

// The table of versions is one sorted set: the score of a member is a version, and
// the member an effect, as a digit, and a tag. What else there is to know of the
// table are members, too, that have the digit 0. So the table is there as a whole or
// not at all, whatever an administrator, an eviction or a failover does to it.
//
//	0top            the newest version
//	0born           the version at which the table was made: nothing is known of what was before
//	0floor1 to 3    the newest version of what was forgotten altogether, by effect
//	0past1 to 3     the newest version of what the filters know, by effect
//	0epoch          the number of the last epoch; the first is 1
//	0count          how many tags its filter has
//
// What the table forgets goes into filters, one for each epoch: see package filter. They are
// members, too, so that they are lost with the table and not without it, and have scores
// below zero, by which they are found.
//
//	0h              the head of an epoch: the newest versions in its filter, by effect, in twenty digits each
//	0b              a block of 4,096 bits. Where there is none, no bit is set
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

// filters are functions for what was forgotten: of so many epochs, with so many blocks each,
// of which a tag has one. In it four bits are set for each effect.
//
// Newest returns the newest versions in the filter of an epoch, by effect, or nothing where
// it is lost. Place returns the number of a tag's block, and a hash of it; bits, the numbers
// of its four bits there with an effect. Block returns a block, or nothing where no bit is set.
const filters = `
local epochs, blocks = 16, 512
local function address(epoch, block) return exact(-(epoch * (blocks + 1) + block)) end
local function member(epoch, block)
	local at = address(epoch, block)
	return redis.call('ZRANGEBYSCORE', versions, at, at)[1]
end
local function newest(epoch)
	local head = member(epoch, blocks)
	return head and {tonumber(string.sub(head, 3, 22)), tonumber(string.sub(head, 23, 42)), tonumber(string.sub(head, 43, 62))}
end
local function place(tag)
	local sum = redis.sha1hex(tag)
	return tonumber(string.sub(sum, 1, 3), 16) % blocks, sum
end
local function bits(sum, effect)
	local n = tonumber(string.sub(sum, 12 * effect - 8, 12 * effect + 3), 16)
	local a, b, c = n % 4096, n % 16777216, n % 68719476736
	return {a, (b - a) / 4096, (c - b) / 16777216, (n - c) / 68719476736}
end
local function block(epoch, n)
	local member = member(epoch, n)
	return member and string.sub(member, -512)
end
`

// effect is a function: the effect on what has a version and tags, which are those of a
// list from an index on; or 4 where the table does not reach back to the version.
const effect = filters + `
local function forgotten(strongest, version, tags, from)
	local last = score('0epoch')
	for epoch = last, math.max(last - epochs + 1, 1), -1 do
		local newest = newest(epoch)
		if not newest then
			return 3
		end
		local weakest = 3
		while weakest > strongest and newest[weakest] <= version do
			weakest = weakest - 1
		end
		for i = from, weakest > strongest and #tags or 0 do
			local n, sum = place(tags[i])
			local block = block(epoch, n)
			for effect = 3, block and strongest + 1 or 4, -1 do
				local found = newest[effect] > version
				for _, at in ipairs(found and bits(sum, effect) or {}) do
					found = found and bit.band(string.byte(block, 1 + (at - at % 8) / 8), 2 ^ (at % 8)) ~= 0
				end
				if found then
					strongest = effect
					break
				end
			end
		end
	end
	return strongest
end

local function effect(version, tags, from)
	local known = redis.call('ZMSCORE', versions, '0born', '0floor1', '0floor2', '0floor3', '0past1', '0past2', '0past3')
	for i = 1, 7 do
		known[i] = tonumber(known[i] or 0)
	end
	if version < known[1] or version > top then
		return 4
	end
	if version == top then
		return 0
	end
	local strongest = 0
	for effect = 3, 1, -1 do
		local found = known[1 + effect] > version
		for first = from, found and 0 or #tags, 1000 do -- unpack has its limits
			local members = {}
			for i = first, math.min(first + 999, #tags) do
				members[#members + 1] = effect .. tags[i]
			end
			for _, v in ipairs(redis.call('ZMSCORE', versions, unpack(members))) do
				found = found or v and tonumber(v) > version
			end
		end
		if found then
			strongest = effect
			break
		end
	end
	for effect = 3, strongest + 1, -1 do
		if known[4 + effect] > version then
			return forgotten(strongest, version, tags, from)
		end
	end
	return strongest
end
`

// judge returns the newest version, and the effect on what has a version (ARGV[2])
// and tags (the rest), or that the table does not reach back to it.
var judge = rueidis.NewLuaScript(table + effect + `
return {top, effect(tonumber(ARGV[2]), ARGV, 3)}
`)

// lost is the effect where it is not known.
const lost = 4

// maxForgotten is how many tags are forgotten at a time: an invalidation should not keep the
// server for long.
const maxForgotten = 2000

// invalidate returns a new version, which has an effect (ARGV[6]) on tags (from ARGV[8] on),
// and tells a channel (ARGV[7]). Where there are more tags than a number (ARGV[2]), it
// forgets some of the oldest: nothing that is more recent than a time in microseconds
// (ARGV[4]), unless there are more than another number (ARGV[3]). The filter of an epoch
// takes as many as ARGV[5] says, and some more.
var invalidate = rueidis.NewLuaScript(table + filters + `
top = math.max(now, top + 1)
local version = exact(top)
for first = 8, #ARGV, 1000 do
	local members = {}
	for i = first, math.min(first + 999, #ARGV) do
		members[#members + 1] = version
		members[#members + 1] = ARGV[6] .. ARGV[i]
	end
	redis.call('ZADD', versions, unpack(members))
end
redis.call('ZADD', versions, version, '0top')

-- raise makes a member as new as a version, at least.
local function raise(member, v)
	if v > score(member) then
		redis.call('ZADD', versions, exact(v), member)
	end
end

-- replace puts a member with a score into the place of the one that has it.
local function replace(at, member)
	redis.call('ZREMRANGEBYSCORE', versions, at, at)
	redis.call('ZADD', versions, at, member)
end

-- name notes the newest versions in the filter of an epoch.
local function name(epoch, newest)
	replace(address(epoch, blocks), string.format('0h%020.0f%020.0f%020.0f %.0f', newest[1], newest[2], newest[3], epoch))
end

-- current returns the epoch for what is forgotten now, and the newest versions in it. Where
-- a filter is lost, all that was forgotten until now counts.
local function current()
	local epoch = score('0epoch')
	local known = newest(epoch)
	if epoch > 0 and known and score('0count') < tonumber(ARGV[5]) then
		return epoch, known
	end
	local oldest = epoch + 1 - epochs
	local dropped = oldest > 0 and newest(oldest) or {0, 0, 0}
	for earlier = math.max(oldest, 1), epoch do
		if not newest(earlier) then
			dropped = {score('0past1'), score('0past2'), score('0past3')}
			name(earlier, {0, 0, 0})
		end
	end
	for effect = 1, 3 do
		raise('0floor' .. effect, dropped[effect])
	end
	if oldest > 0 then
		redis.call('ZREMRANGEBYSCORE', versions, address(oldest, blocks), address(oldest, 0))
	end
	redis.call('ZADD', versions, epoch + 1, '0epoch', 0, '0count')
	return epoch + 1, {0, 0, 0}
end

-- with returns a block with the bytes at some indices replaced.
local function with(block, bytes)
	local indices = {}
	for index in pairs(bytes) do
		indices[#indices + 1] = index
	end
	table.sort(indices)
	local parts, last = {}, 0
	for _, index in ipairs(indices) do
		parts[#parts + 1] = string.sub(block, last + 1, index - 1)
		parts[#parts + 1] = string.char(bytes[index])
		last = index
	end
	parts[#parts + 1] = string.sub(block, last + 1)
	return table.concat(parts)
end

-- forget leaves of members, which are in order, what the filters keep.
local function forget(members)
	local epoch, newest = current()
	local before, changed, last = {}, {}, {}
	for _, member in ipairs(members) do
		local effect = tonumber(string.sub(member, 1, 1))
		last[effect] = member
		local n, sum = place(string.sub(member, 2))
		local block, bytes = before[n] or block(epoch, n) or string.rep('\0', 512), changed[n] or {}
		before[n], changed[n] = block, bytes
		for _, at in ipairs(bits(sum, effect)) do
			local index = 1 + (at - at % 8) / 8
			bytes[index] = bit.bor(bytes[index] or string.byte(block, index), 2 ^ (at % 8))
		end
	end
	for n, bytes in pairs(changed) do
		local at = address(epoch, n)
		replace(at, '0b' .. at .. ' ' .. with(before[n], bytes))
	end
	for effect, member in pairs(last) do
		newest[effect] = math.max(newest[effect], score(member))
		raise('0past' .. effect, newest[effect])
	end
	name(epoch, newest)
	redis.call('ZADD', versions, exact(score('0count') + #members), '0count')
	for first = 1, #members, 1000 do
		redis.call('ZREM', versions, unpack(members, first, math.min(first + 999, #members)))
	end
end

-- What is of the newest version stays, or everything would count as invalidated. Members
-- with versions that are no tags do not count.
local size = redis.call('ZCOUNT', versions, '1000000000', '+inf')
for _, v in ipairs(redis.call('ZMSCORE', versions, '0top', '0born', '0floor1', '0floor2', '0floor3', '0past1', '0past2', '0past3')) do
	size = v and size - 1 or size
end
if size > tonumber(ARGV[2]) then
	local excess = math.min(size - ARGV[2], ` + strconv.Itoa(maxForgotten) + `)
	local recent = size > tonumber(ARGV[3]) and top or math.min(top, now - ARGV[4])
	local members = {}
	for _, member in ipairs(redis.call('ZRANGEBYSCORE', versions, '1000000000', '(' .. exact(recent), 'LIMIT', 0, excess + 8)) do
		if #members < excess and string.byte(member) ~= 48 then
			members[#members + 1] = member
		end
	end
	if #members > 0 then
		forget(members)
	end
end

-- Only a hint: who may not publish invalidates all the same.
redis.pcall('PUBLISH', ARGV[7], version)
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
local after, reset, floors = tonumber(ARGV[2]), 0, {}
if after < score('0born') then
	reset = 1
end
for effect = 1, 3 do
	local floor = math.max(score('0floor' .. effect), score('0past' .. effect))
	if after < floor then
		reset = 1
	end
	floors[effect] = exact(floor)
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
