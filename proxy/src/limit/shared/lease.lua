-- One slice of a tenant's rate: what was spent without asking is charged, what was not used is taken back, and as much
-- of what is wanted is granted as there is room for.
--
-- The bucket is one number, the theoretical arrival time of GCRA in microseconds since 1970 by this server's clock. It is
-- full when that is past, and then the key is gone: nothing is kept of tenants at rest.
--
-- KEYS  1 bucket of the tenant   2 when this server's memory began
-- ARGV  1 interval (microseconds a request)   2 burst   3 spent   4 back   5 wanted
-- gives what was granted, and microseconds until there is room for one more

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local spent, back, wanted = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local horizon = interval * burst

local due = tonumber(redis.call('GET', KEYS[1]) or nil)
if not due then
    -- At rest, or forgotten: a server that lost its memory must not grant a burst that was granted already, so every
    -- bucket was empty when it began.
    local began = tonumber(redis.call('GET', KEYS[2]) or nil)
    if not began then
        began = now
        redis.call('SET', KEYS[2], string.format('%.0f', now))
    end
    due = began + horizon
end
due = math.max(due - back * interval, now) + spent * interval
-- Nobody is locked out for longer than it takes to fill a bucket twice: after a lower limit, or a clock that was ahead.
due = math.min(due, now + 2 * horizon)
local room = math.floor((now + horizon - due) / interval)
local granted = math.max(0, math.min(wanted, room))
due = due + granted * interval
redis.call('SET', KEYS[1], string.format('%.0f', due), 'PX', math.ceil((due - now) / 1000) + 1000)
return { granted, math.max(0, math.ceil(due + interval - horizon - now)) }
