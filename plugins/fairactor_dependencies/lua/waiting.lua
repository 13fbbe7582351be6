-- A part of ends.lua: tasks that wait, and when they wait no more.
--
-- Such a task is an array, not a table of named fields: half of what it would take, where there are many.

-- @takes call, HEADER from lib/base.lua
-- @takes NONE from lib/policy.lua
-- @takes admit, read_held, kept_of, held_record from lib/admit.lua
-- @takes cancel_held, pack_cancel from lib/ending.lua
-- @takes mine, gone, WAITING, OPEN, CLOSED, NEVER, UNHEARD_BYTE from own/ends.lua

local ID, RULE, GATE, KEEP = 1, 2, 3, 4
local HAVE_FINISHED, HAVE_FAILED, WERE_CANCELED = 5, 6, 7 -- how many of those that it waits for
local TOKEN = 8
local HEARD = 9 -- a letter for each of those that it waits for
local NEWS, RESULTS = 10, 11 -- place -> letter, and result, of what it is told here; false: of nothing
local CHANGED, IS_NEW, WANTED = 12, 13, 14

local count_of = { F = HAVE_FINISHED, X = HAVE_FAILED, C = WERE_CANCELED }
local children = {} -- task -> that array; false where it waits for nothing

local function read_children(ids)
  read_held(ids)
  for _, id in ipairs(ids) do
    if children[id] == nil then
      local kept, from = kept_of(id, SELF)
      children[id] = false
      if kept then
        local rule, gate, keep, finished, failed, canceled, token, at = struct.unpack(WAITING, kept, from)
        children[id] = { id, rule, gate, keep, finished, failed, canceled, token, kept:sub(at), false, false, false, false }
      end
    end
  end
end

local function pack_child(child)
  local heard = child[HEARD]
  if child[NEWS] then
    local places, pieces, at = {}, {}, 1
    for place in pairs(child[NEWS]) do places[#places + 1] = place end
    table.sort(places)
    for _, place in ipairs(places) do
      if place > at then pieces[#pieces + 1] = heard:sub(at, place - 1) end
      pieces[#pieces + 1] = child[NEWS][place]
      at = place + 1
    end
    heard = table.concat(pieces) .. heard:sub(at)
  end
  return struct.pack(WAITING, #child[RULE], child[RULE], child[GATE], child[KEEP], child[HAVE_FINISHED],
    child[HAVE_FAILED], child[WERE_CANCELED], #child[TOKEN], child[TOKEN]) .. heard
end

-- Whether a task may run: true, false never any more, nil not yet; by how many have not ended, finished, failed, and were
-- canceled.
local rules = {
  all_success = function(open, _, failed, canceled)
    if failed + canceled > 0 then return false end
    if open == 0 then return true end
  end,
  all_done = function(open) if open == 0 then return true end end,
  one_success = function(open, finished)
    if finished > 0 then return true end
    if open == 0 then return false end
  end,
  one_failed = function(open, _, failed)
    if failed > 0 then return true end
    if open == 0 then return false end
  end,
  none_failed = function(open, _, failed)
    if failed > 0 then return false end
    if open == 0 then return true end
  end,
}

-- The record of a task, with results in place of the tokens in its arguments; nil where there are none.
local function filled(child)
  if child[TOKEN] == '' then return nil end
  local record, results = held_record(child[ID]), child[RESULTS] or {}
  if not record then return nil end
  local stored = not child[IS_NEW] and call('HGETALL', OWN .. 'got:' .. child[ID]) or {}
  for i = 1, #stored, 2 do results[tonumber(stored[i])] = stored[i + 1] end
  return (record:gsub('"' .. child[TOKEN] .. ':(%w+)"', function(which)
    if which ~= 'all' and which ~= 'rest' then return results[tonumber(which)] or 'null' end
    local all = {}
    for i = which == 'all' and 1 or 2, #child[HEARD] do all[#all + 1] = results[i] or 'null' end
    return '[' .. table.concat(all, ',') .. ']'
  end))
end

local WORDS = { F = 'finished', X = 'failed', C = 'was canceled' }
mine.roots, mine.letters = mine.roots or {}, mine.letters or {}

-- One of the tasks before it that has ended in that way; nil where its record does not name it, for it has grown since.
local function one_that_ended(child, letter)
  local record = held_record(child[ID])
  local is_read, sent = pcall(cjson.decode, record:match('^[^\n]*', (select(7, struct.unpack(HEADER, record)))))
  local parents = is_read and type(sent) == 'table' and type(sent[4]) == 'table' and sent[4].depends_on
  for place, id in ipairs(type(parents) == 'table' and parents or NONE) do
    if ((child[NEWS] or NONE)[place] or child[HEARD]:sub(place, place)) == letter then return id end
  end
end

-- Why a task can run no more whose gate has ended: that is why, or what it had heard before.
local function after_gate(child)
  if child[GATE] == NEVER then return { letter = 'C', text = 'its run was not sent whole' } end
  local finished, failed, canceled = child[HAVE_FINISHED], child[HAVE_FAILED], child[WERE_CANCELED]
  local letter = failed > 0 and 'X' or canceled > 0 and 'C' or 'F'
  local id, text = one_that_ended(child, letter), 'it can run no more (' .. child[RULE] .. '): '
  if id then
    text = text .. 'task ' .. id .. ' before it ' .. (letter == 'F' and 'finished' or 'did not finish')
  else
    text = text .. string.format('of %d tasks before it %d finished, %d failed and %d were canceled', #child[HEARD], finished,
      failed, canceled)
  end
  return { letter = letter, text = text }
end

-- Cancels a task; `why` is the end that has decided, nil that of its gate. Its root is '' where only its record tells that
-- something before it failed.
local function cancel_child(child, why)
  why = why or after_gate(child)
  local id, text = child[ID], why.text
  local letter = child[GATE] ~= NEVER and child[HAVE_FAILED] > 0 and 'X' or 'C'
  if not text then
    text = 'it can run no more (' .. child[RULE] .. '): task ' .. why.id .. ' before it '
    if why.root == why.id then
      text = text .. WORDS[why.letter]
    elseif why.root == '' then
      text = text .. 'was canceled, since one before that failed'
    else
      text = text .. 'was canceled, since task ' .. why.root .. ' ' .. WORDS[why.letter]
    end
  end
  mine.letters[id] = letter
  -- What has decided may have been canceled, and others before it have failed: that is no root of a failure.
  mine.roots[id] = why.letter == letter and why.root or letter == 'X' and '' or id
  local kind = letter == 'X' and 'UpstreamFailed' or 'TaskCanceled'
  local outcome = '{"error":{"type":"' .. kind .. '","message":' .. cjson.encode(text) .. '}}'
  cancel_held(id, pack_cancel(child[KEEP], outcome))
end

local function wait_no_more(child)
  children[child[ID]] = false
  if child[TOKEN] ~= '' and not child[IS_NEW] then gone[#gone + 1] = OWN .. 'got:' .. child[ID] end
end

local function judge(child, why)
  if child[GATE] == CLOSED then return end
  local many, may = #child[HEARD], true
  if child[GATE] == NEVER then
    may, why = false, nil
  elseif many > 0 then
    local finished, failed, canceled = child[HAVE_FINISHED], child[HAVE_FAILED], child[WERE_CANCELED]
    may = rules[child[RULE]](many - finished - failed - canceled, finished, failed, canceled)
  end
  if may == nil then return end
  wait_no_more(child)
  if may then admit(child[ID], filled(child)) else cancel_child(child, why) end
end

-- Tells a task that what stands at a place of what it waits for has ended; place 0 is the gate.
local function tell(child, place, why, result)
  if place == 0 then
    if child[GATE] ~= CLOSED then return end
    child[GATE], why = why.letter == 'F' and OPEN or NEVER, nil
  else
    local letter, news = why.letter, child[NEWS]
    if child[HEARD]:byte(place) ~= UNHEARD_BYTE or (news and news[place]) then return end
    if not news then
      news = {}
      child[NEWS] = news
    end
    news[place] = letter
    if result and child[TOKEN] ~= '' then
      child[RESULTS] = child[RESULTS] or {}
      child[RESULTS][place] = result
    end
    child[count_of[letter]] = child[count_of[letter]] + 1
  end
  child[CHANGED] = true
  judge(child, why)
end
