-- One slice of a tenant's rate: what was spent without asking is charged, what was not used is taken back, and as much
-- of what is wanted is granted as there is room for.
--
-- The bucket is one number, the theoretical arrival time of GCRA in microseconds since 1970 by this server's clock. It is
-- full when that is past, and then the key is gone: nothing is kept of tenants at rest.
--
-- KEYS  1 bucket of the tenant   2 what is known of this server
-- ARGV  1 interval (microseconds a request)   2 burst   3 spent   4 back   5 wanted
--       6 for how long the node has had no answer (microseconds; 0: it had one)   7 how long nodes take to come back
-- gives what was granted, microseconds until there is room for one more, and microseconds for which nothing is granted
-- because nodes are coming back

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local spent, back, wanted = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local away, coming = tonumber(ARGV[6]), tonumber(ARGV[7])
local horizon = interval * burst
local function text(moment) return string.format('%.0f', moment) end

local known = redis.call('HMGET', KEYS[2], 'began', 'since', 'leased', 'settled')
local began, since = tonumber(known[1]), tonumber(known[2]) or 0
local leased, settled = tonumber(known[3]) or 0, tonumber(known[4]) or 0
if not began then
    began = now
    redis.call('HSET', KEYS[2], 'began', text(now))
end
-- Nobody leased when this node went away, so all were away: each lets its share through until it asks again. What is
-- granted before all have asked would be granted twice. Leases less than a second apart are one run, which has to have begun
-- before: the first asks that a server answers when it was stopped and goes on stood in its sockets meanwhile.
local left = now - away
if settled > now + coming then settled = 0 end -- of a clock that was ahead
if away > 0 and settled < left and (leased < left or since > left) then
    settled = now + coming
    redis.call('HSET', KEYS[2], 'settled', text(settled))
end
if now < settled then
    wanted = 0
elseif wanted > 0 then
    if now - leased > 1000000 then since = now end
    redis.call('HSET', KEYS[2], 'since', text(since), 'leased', text(now))
end

-- At rest, or forgotten: a server that lost its memory must not grant a burst that was granted already, so every bucket
-- was empty when it began.
local due = tonumber(redis.call('GET', KEYS[1])) or began + horizon
due = math.max(due - back * interval, now) + spent * interval
-- Nobody is locked out for longer than it takes to fill a bucket twice: after a lower limit, or a clock that was ahead.
due = math.min(due, now + 2 * horizon)
local room = math.floor((now + horizon - due) / interval)
local granted = math.max(0, math.min(wanted, room))
due = due + granted * interval
redis.call('SET', KEYS[1], text(due), 'PX', math.ceil((due - now) / 1000) + 1000)
return { granted, math.max(0, math.ceil(due + interval - horizon - now)), math.max(0, settled - now) }
