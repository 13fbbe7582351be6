-- Compares what was found with the rules. Returns the alerts that people have to be told.
--
-- KEYS  1 META of the shard
-- ARGV  1 the rules, msgpack: {name: [above, clear, ms for which it has to be broken], ...}; 2 what was found, msgpack:
--       [[rule, subject, value, sentence], ...], without what is below `clear`; 3 ms for which the caller tells people
-- Reply {rule, subject, 'firing' or 'resolved', unix ms since when, value, ...}; a value is a string
--
-- Bounded: 1,000 alerts; what comes then waits until others are over.
-- Safe to repeat: an alert that was returned is returned again only after ARGV[3], if told.lua was not called.

-- @include lib/intact.lua

local MOST = 1000
local KEEP = 86400000 -- ms, if nobody looks any more
local SEPARATOR = '\31'
local rules, found, telling = cmsgpack.unpack(ARGV[1]), cmsgpack.unpack(ARGV[2]), tonumber(ARGV[3])
local values, key, known, number_known = {}, OWN .. 'alerts', {}, 0
for _, each in ipairs(found) do values[each[1] .. SEPARATOR .. each[2]] = { each[3], each[4] } end
local flat = call('HGETALL', key)
for i = 1, #flat, 2 do
  known[flat[i]], number_known = cmsgpack.unpack(flat[i + 1]), number_known + 1
end

local written, deleted, reply, made = {}, {}, {}, 0

-- An alert is {since, state, value, ms until when a runtime tells people of it, or false, sentence}; its states are 'waits',
-- 'firing' and 'resolved'. It is known by its rule, its subject and since when it is.
local function save(field, alert)
  written[#written + 1], written[#written + 2] = field, cmsgpack.pack(alert)
end

local function tell(field, alert)
  local rule, subject = field:match('^(.-)' .. SEPARATOR .. '(.*)$')
  alert[4] = shard.ms + telling
  for _, part in ipairs({ rule, subject, alert[2], integer(alert[1]), tostring(alert[3]) }) do
    reply[#reply + 1] = part
  end
end

-- Carries on an alert, given the value that was found, or 0, and a sentence about it.
local function carry_on(field, alert, rule, found_now)
  local above, clear, wait, value = rule[1], rule[2], rule[3], found_now[1]
  alert[5] = found_now[2] or alert[5]
  if alert[2] == 'waits' then
    if value < above then
      deleted[#deleted + 1] = field
      return
    end
    alert[3] = value
    if shard.ms - alert[1] >= wait then
      alert[2] = 'firing'
      tell(field, alert)
    end
  else
    if alert[2] == 'firing' then
      if value < clear or value == 0 then
        alert[2] = 'resolved'
        tell(field, alert)
      else
        alert[3] = value
      end
    end
    if alert[4] and alert[4] <= shard.ms then tell(field, alert) end
  end
  save(field, alert)
end

for field, alert in pairs(known) do
  local rule = rules[field:match('^(.-)' .. SEPARATOR)]
  if rule then carry_on(field, alert, rule, values[field] or { 0 }) end
end
for field, found_now in pairs(values) do
  local rule = rules[field:match('^(.-)' .. SEPARATOR)]
  local value = found_now[1]
  if not known[field] and rule and value >= rule[1] and value > 0 and number_known + made < MOST then
    made = made + 1
    carry_on(field, { shard.ms, 'waits', value, false, '' }, rule, found_now)
  end
end

begin_writing()
write_all('HDEL', key, deleted)
write_all('HSET', key, written)
if call('EXISTS', key) == 1 then call('PEXPIRE', key, KEEP) end
end_writing()
return reply
