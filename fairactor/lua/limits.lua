-- Describes limits: one, or all in steps.
--
-- KEYS  1 META of the shard
-- ARGV  1 limit, as JSON text without quotation marks, or '' for all, 2 a tenant, for its instance, or '',
--       3 the cursor for the limits, '0' at first, 4 the cursor for what runs, likewise; '' if that is known
-- Reply {now in ms, {limit, or limit, U+001F and tenant; settings, packed, or ''; µs until what was taken is paid for;
--        tenants that wait, ...}, the next cursor, {limit or instance; tasks that run, ...}, the next cursor}; a cursor is '0'
--        at the end. The tasks of a limit include those of its instances. A limit may come twice
--
-- Reads only.

-- @include lib/intact.lua

local LOOK = 50 -- limits in a step, about
local STARTED = 500 -- limits and instances with tasks that run, likewise
local fields, next_cursor = {}, '0'
if ARGV[1] ~= '' and ARGV[3] == '0' then
  fields[1] = ARGV[2] == '' and ARGV[1] or ARGV[1] .. '\31' .. ARGV[2]
elseif ARGV[3] ~= '' then
  local found = call('HSCAN', LIMIT_SETTINGS, ARGV[3], 'COUNT', LOOK)
  next_cursor = found[1]
  for i = 1, #found[2], 2 do
    if not found[2][i]:find('\31', 1, true) then fields[#fields + 1] = found[2][i] end
  end
end
local settings, dues, described = read_all('HMGET', LIMIT_SETTINGS, fields), read_all('ZMSCORE', LIMIT_DUES, fields), {}
for i, field in ipairs(fields) do
  local waiting = 0
  for _, id in ipairs(call('SRANDMEMBER', LINES_OF .. field, 20)) do waiting = waiting + call('ZCARD', LINE .. id) end
  local owed = math.max(0, (tonumber(dues[i] or nil) or 0) - shard.now)
  for _, value in ipairs({ field, settings[i] or '', integer(owed), waiting }) do described[#described + 1] = value end
end
local started = ARGV[4] ~= '' and call('HSCAN', LIMIT_STARTED, ARGV[4], 'COUNT', STARTED) or { '0', {} }
return { integer(shard.ms), described, next_cursor, started[2], started[1] }
