-- Takes one request from a key's allowance. Times are in microseconds of Redis's own clock.
--
-- KEYS[1]  the bucket of requests: the time at which it is full again ("theoretical arrival time")
-- ARGV[1]  requests per minute; the bucket holds as many, so that they may also come at once
--
-- Returns {allowed (1 or 0), remaining requests, time until full, time until the next request is allowed}.
-- Generic cell rate algorithm: https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm
local per_minute = tonumber(ARGV[1])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local interval = math.ceil(60000000 / per_minute)
local capacity = interval * per_minute

local full_at = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
local taken = full_at + interval - now
if taken > capacity then
  return {0, 0, full_at - now, taken - capacity}
end
redis.call('SET', KEYS[1], string.format('%.0f', full_at + interval), 'PX', math.ceil(taken / 1000))
return {1, math.floor((capacity - taken) / interval), taken, 0}
