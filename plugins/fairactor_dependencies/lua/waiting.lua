-- A part of ends.lua: waiting tasks.
--
-- Such a task is an array, not a table of named fields: that takes half the space.

-- @takes HEADER, DONE, write_all from lib/base.lua
-- @takes NONE from lib/policy.lua
-- @takes admit, read_held, kept_of, held_record from lib/admit.lua
-- @takes cancel_held, pack_cancel from lib/ending.lua
-- @takes budget, RELEASES, ENDS, PIECE, deleted, late, WAITING, OPEN, CLOSED, NEVER, PENDING, PENDING_BYTE from own/ends.lua
-- @takes FEW, SMALL, COPIED from own/ends.lua
-- @takes SKIPPED from own/outcome.lua

local ID, RULE, GATE, KEEP = 1, 2, 3, 4
local HAVE_FINISHED, HAVE_FAILED, WERE_CANCELED = 5, 6, 7 -- how many of its parents
local TOKEN = 8
local OUTCOMES = 9 -- the state of each parent
local NEWS, RESULTS = 10, 11 -- index -> state, result of parents that end here, or false
local CHANGED, IS_NEW, REFUSED = 12, 13, 14

local count_of = { F = HAVE_FINISHED, X = HAVE_FAILED, C = WERE_CANCELED, S = WERE_CANCELED }
local children = {} -- task -> that array; false if it does not wait

local function read_children(ids)
  read_held(ids)
  for _, id in ipairs(ids) do
    if children[id] == nil then
      local kept, from = kept_of(id, SELF)
      children[id] = false
      local fits, rule, gate, keep, finished, failed, canceled, token, at =
        pcall(struct.unpack, WAITING, kept or '', from or 1)
      if kept and fits then -- otherwise somebody has damaged it, and Runtime.repair has to decide
        children[id] = { id, rule, gate, keep, finished, failed, canceled, token, kept:sub(at),
          false, false, false, false }
      end
    end
  end
end

local function pack_child(child)
  local outcomes = child[OUTCOMES]
  if child[NEWS] then
    local indexes, pieces, at = {}, {}, 1
    for index in pairs(child[NEWS]) do indexes[#indexes + 1] = index end
    table.sort(indexes)
    for _, index in ipairs(indexes) do
      if index > at then pieces[#pieces + 1] = outcomes:sub(at, index - 1) end
      pieces[#pieces + 1] = child[NEWS][index]
      at = index + 1
    end
    outcomes = table.concat(pieces) .. outcomes:sub(at)
  end
  return struct.pack(WAITING, #child[RULE], child[RULE], child[GATE], child[KEEP], child[HAVE_FINISHED],
    child[HAVE_FAILED], child[WERE_CANCELED], #child[TOKEN], child[TOKEN]) .. outcomes
end

-- Whether a task may run: true, false (never), nil (not yet); by its parents that have not ended, finished, failed, and
-- were canceled.
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

local JOINS = 'each:' -- before the rule of a task that joins the results of an `each()`

-- Returns the name of a task's trigger rule.
local function rule_of(child) return (child[RULE]:gsub('^' .. JOINS, '')) end

-- Whether a task may run, as `rules` say. If it joins results, its first parent sends the items, and the rule is for
-- these. If that one failed, nobody waits for the items that it may not have sent.
local function may_run(child)
  local finished, failed, canceled = child[HAVE_FINISHED], child[HAVE_FAILED], child[WERE_CANCELED]
  local open = #child[OUTCOMES] - finished - failed - canceled
  if #child[OUTCOMES] > 1 and child[RULE]:sub(1, #JOINS) == JOINS then
    local sent = (child[NEWS] or NONE)[1] or child[OUTCOMES]:sub(1, 1)
    if sent == DONE then
      finished = finished - 1
    elseif sent ~= PENDING then
      open = 0
    end
  end
  return rules[rule_of(child)](open, finished, failed, canceled)
end

-- Returns the results that a task has received: those of this script, and a function that reads others.
local function results_of(child)
  local results, got = child[RESULTS] or {}, OWN .. 'got:' .. child[TOKEN]
  local stored = not child[IS_NEW] and call('HLEN', got) or 0
  if stored > 0 and stored <= FEW then
    local before, size = {}, 0
    for _, index in ipairs(call('HKEYS', got)) do -- one by one, since they may be large
      if size > SMALL then break end
      local result = call('HGET', got, index)
      before[tonumber(index)], size = result, size + #result
    end
    if size <= SMALL then
      for index, result in pairs(before) do results[index] = result end
      stored = 0
    end
  end
  return results, function(index)
    return results[index] or (stored > 0 and call('HGET', got, index)) or 'null'
  end, stored
end

-- Returns a list of results as JSON; nil if it is too large for a record.
local function few_results(results, stored, from, to)
  if stored > 0 or to - from >= FEW then return nil end
  local all, size = {}, 0
  for i = from, to do
    all[#all + 1] = results[i] or 'null'
    size = size + #all[#all]
  end
  return size <= SMALL and '[' .. table.concat(all, ',') .. ']' or nil
end

-- Returns a task's record with results in place of the tokens; nil without tokens. A token ends with the index of a
-- parent, with a range of them ('2to5'), or with 'all' or 'rest'. Where a list would be too large, or one more result, a
-- reference stands for it. Only who knows the token can read what it stands for.
local function with_results(child)
  if child[TOKEN] == '' then return nil end
  local record = held_record(child[ID])
  if not record then return nil end
  local results, result_at, stored = results_of(child)
  local copied = 0
  local function refer(kind, from, to)
    if late[#late] ~= child then late[#late + 1] = child end
    return '{"fairactor_dependencies.' .. kind .. '":["' .. child[TOKEN] .. '",' .. from .. ',' .. to .. ']}'
  end
  local function replacement(which)
    local from, to = which:match('^(%d+)to(%d+)$')
    if which == 'all' or which == 'rest' then from, to = which == 'all' and 1 or 2, #child[OUTCOMES] end
    from, to = tonumber(from or which), tonumber(to)
    local inline = copied < COPIED and (to and few_results(results, stored, from, to) or not to and result_at(from))
    if not inline or copied + #inline > COPIED then return refer(to and 'results' or 'result', from, to or from) end
    copied = copied + #inline
    return inline
  end
  local pieces, at, mark = {}, 1, '"' .. child[TOKEN] .. ':' -- a plain search: a pattern would take a look at each byte
  while true do
    local from, to = record:find(mark, at, true)
    local which, after
    if from then which, after = record:match('^(%w+)"()', to + 1) end
    if not which then break end
    pieces[#pieces + 1], pieces[#pieces + 2], at = record:sub(at, from - 1), replacement(which), after
  end
  pieces[#pieces + 1] = record:sub(at)
  return table.concat(pieces)
end

-- Keeps the results of this script for a task.
local function keep_results(child)
  local fields = {}
  for index, result in pairs(child[RESULTS] or NONE) do fields[#fields + 1], fields[#fields + 2] = index, result end
  write_all('HSET', OWN .. 'got:' .. child[TOKEN], fields)
end

local NAMED = 500 -- parents whose ids are read to name one
local WORDS = { F = 'finished', X = 'failed', C = 'was canceled', S = 'was skipped' }
mine.roots, mine.states = mine.roots or {}, mine.states or {}

-- Returns a parent that ended so; nil if there are too many to look for it, or the record does not name it: the task
-- has grown.
local function parent_that_ended(child, state)
  if #child[OUTCOMES] > NAMED then return nil end
  local record = held_record(child[ID])
  local is_read, sent = pcall(cjson.decode, record:match('^[^\n]*', (select(7, struct.unpack(HEADER, record)))))
  local parents = is_read and type(sent) == 'table' and type(sent[4]) == 'table' and sent[4].depends_on
  for index, id in ipairs(type(parents) == 'table' and parents or NONE) do
    if ((child[NEWS] or NONE)[index] or child[OUTCOMES]:sub(index, index)) == state then return id end
  end
end

-- Returns why a task cannot run whose gate has ended: the gate, or its parents.
local function cause_after_gate(child)
  if child[REFUSED] then return { state = 'C', text = 'its run was canceled' } end
  if child[GATE] == NEVER then return { state = 'C', text = 'its run was not sent whole' } end
  local finished, failed, canceled = child[HAVE_FINISHED], child[HAVE_FAILED], child[WERE_CANCELED]
  local state = failed > 0 and 'X' or canceled > 0 and 'C' or 'F'
  local id, text = parent_that_ended(child, state), 'cannot run (trigger rule ' .. rule_of(child) .. '): '
  if id then
    text = text .. 'upstream task ' .. id .. (state == 'F' and ' finished' or ' did not finish')
  else
    text = text .. string.format('of %d upstream tasks %d finished, %d failed and %d were canceled',
      #child[OUTCOMES], finished, failed, canceled)
  end
  return { state = state, text = text }
end

-- Returns how many of a task's parents were skipped.
local function count_skipped(child)
  local many, at = 0, child[OUTCOMES]:find(SKIPPED, 1, true)
  while at do many, at = many + 1, child[OUTCOMES]:find(SKIPPED, at + 1, true) end
  for _, state in pairs(child[NEWS] or NONE) do many = many + (state == SKIPPED and 1 or 0) end
  return many
end

-- Returns how a task ends that may not run: X if a parent failed, C if one was canceled, otherwise S, with the reason.
local function end_of(child)
  if child[GATE] == NEVER then return 'C' end
  if child[HAVE_FAILED] > 0 then return 'X' end
  local skipped = count_skipped(child)
  if child[WERE_CANCELED] > skipped then return 'C' end
  return SKIPPED, 'skipped (trigger rule ' .. rule_of(child) .. '): '
    .. (skipped > 0 and 'an upstream task was skipped' or 'no upstream task failed')
end

local ERRORS = { X = 'UpstreamFailed', C = 'TaskCanceled', S = 'TaskSkipped' }

-- Cancels a task. `cause` is the end that decided, nil for the gate's. The root is '' if only a record says that
-- something upstream of it failed.
local function cancel_child(child, cause)
  cause = cause or cause_after_gate(child)
  local id = child[ID]
  local state, why = end_of(child)
  local text = why or cause.text
  if not text then
    text = 'cannot run (trigger rule ' .. rule_of(child) .. '): upstream task ' .. cause.id .. ' '
    if cause.root == cause.id then
      text = text .. WORDS[cause.state]
    elseif cause.root == '' then
      text = text .. 'was canceled because a task upstream of it failed'
    else
      text = text .. 'was canceled because task ' .. cause.root .. ' ' .. WORDS[cause.state]
    end
  end
  mine.states[id] = state
  -- A canceled parent may have decided although others failed: it is not the root of a failure.
  mine.roots[id] = state ~= SKIPPED and cause.state == state and cause.root or state == 'X' and '' or id
  local outcome = '{"error":{"type":"' .. ERRORS[state] .. '","message":' .. cjson.encode(text) .. '}}'
  cancel_held(id, pack_cancel(child[KEEP], outcome))
  if mine.traced == nil then mine.traced = call('EXISTS', OWN .. 'tracing') == 1 and {} end
  if mine.traced then table.insert(mine.traced, id) end
end

local function forget_child(child)
  children[child[ID]] = false
  if child[TOKEN] ~= '' and late[#late] ~= child and not child[IS_NEW] then
    deleted[#deleted + 1] = OWN .. 'got:' .. child[TOKEN]
  end
end

local function decide(child, cause)
  if child[GATE] == CLOSED then return end
  local many, may = #child[OUTCOMES], true
  if child[GATE] == NEVER then
    may, cause = false, nil
  elseif many > 0 then
    may = may_run(child)
  end
  if may == nil then return end
  local record = may and with_results(child) or nil
  forget_child(child)
  local copied = record and #record or may and 0 or call('STRLEN', TASK .. child[ID])
  budget = budget - (may and RELEASES or ENDS) - copied / PIECE
  if may then admit(child[ID], record) else cancel_child(child, cause) end
end

-- Notifies a task that the parent at an index has ended; 0 is the gate.
local function notify(child, index, cause, result)
  if index == 0 then
    if child[GATE] ~= CLOSED then return end
    child[GATE], cause = cause.state == 'F' and OPEN or NEVER, nil
  else
    local state, news = cause.state, child[NEWS]
    if child[OUTCOMES]:byte(index) ~= PENDING_BYTE or (news and news[index]) then return end
    if not news then
      news = {}
      child[NEWS] = news
      budget = budget - #child[OUTCOMES] / PIECE
    end
    news[index] = state
    if result and child[TOKEN] ~= '' then
      budget = budget - #result / PIECE
      child[RESULTS] = child[RESULTS] or {}
      child[RESULTS][index] = result
    end
    child[count_of[state]] = child[count_of[state]] + 1
  end
  child[CHANGED] = true
  decide(child, cause)
end
