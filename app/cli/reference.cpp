// SPDX-License-Identifier: GPL-3.0-or-later
// The command line described by itself: the page docs/cli.md, the manual page, completions of three shells.
#include "app/cli/options.h"
#include "app/cli/session.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

namespace rankscope::cli {
namespace {

constexpr const char* k_exit_status =
    "0 done, 1 internal error, 2 wrong usage, 3 bad input or a file that cannot be read or written, "
    "4 no space on the drive or in memory, 5 no such device, 130 stopped on request";

struct OptionText {
    std::string spelling; ///< "--threads N", "PATH"
    std::string help;
    bool positional = false;
};

struct CommandText {
    std::string name;
    std::string help;
    std::vector<OptionText> options;
};

/// What stands for an option's value: its name, or the choices it has. CLI11 appends its rules after a colon.
std::string value_text(const CLI::Option& option)
{
    const std::string type = option.get_type_name();
    const std::size_t choices = type.find('{');
    if (choices != std::string::npos) {
        std::string text = type.substr(choices + 1, type.find('}') - choices - 1);
        std::replace(text.begin(), text.end(), ',', '|');
        return text;
    }
    return type.substr(0, type.find(':'));
}

OptionText option_text(const CLI::Option& option)
{
    OptionText text;
    text.help = option.get_description();
    text.positional = option.nonpositional() ? false : option.get_positional();
    if (text.positional) {
        text.spelling = option.get_name(true, false);
        return text;
    }
    for (const std::string& name : option.get_snames())
        text.spelling += (text.spelling.empty() ? "-" : ", -") + name;
    for (const std::string& name : option.get_lnames())
        text.spelling += (text.spelling.empty() ? "--" : ", --") + name;
    if (option.get_items_expected_max() > 0)
        text.spelling += " " + value_text(option);
    return text;
}

CommandText command_text(const CLI::App& command)
{
    CommandText text{command.get_name(), command.get_description(), {}};
    for (const CLI::Option* option : command.get_options())
        if (option->get_lnames() != std::vector<std::string>{"help"})
            text.options.push_back(option_text(*option));
    std::stable_partition(text.options.begin(), text.options.end(),
                          [](const OptionText& option) { return option.positional; });
    return text;
}

std::vector<CommandText> subcommands(const CLI::App& app)
{
    std::vector<CommandText> commands;
    for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
        commands.push_back(command_text(*command));
    return commands;
}

std::string usage(const CommandText& command)
{
    std::string text = "rankscope-cli " + command.name;
    for (const OptionText& option : command.options)
        if (option.positional)
            text += " " + option.spelling;
    return text + " [OPTIONS]";
}

std::string replaced(std::string text, std::string_view what, std::string_view by)
{
    for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + by.size()))
        text.replace(at, what.size(), by);
    return text;
}

void append_table(const std::vector<OptionText>& options, std::string& page)
{
    if (options.empty())
        return;
    page += "\n| option | meaning |\n| --- | --- |\n";
    for (const OptionText& option : options)
        page += fmt::format("| `{}` | {} |\n", replaced(option.spelling, "|", "\\|"),
                            replaced(replaced(option.help, "|", "\\|"), "\n", " "));
}

std::string markdown(const CLI::App& app)
{
    std::string page = "# Command line\n\nThis page is what `rankscope-cli reference` prints.\n\n"
                       + app.get_description() + "\n\nExit status: " + k_exit_status
                       + ". With `--json` an error is a document too.\n\n"
                         "## Global options\n\nBefore or after the subcommand.\n";
    append_table(command_text(app).options, page);
    for (const CommandText& command : subcommands(app)) {
        page += fmt::format("\n## {}\n\n{}.\n\n    {}\n", command.name, command.help, usage(command));
        append_table(command.options, page);
    }
    return page;
}

/// Text of a manual page: no line of it is taken for a request.
std::string roff(const std::string& text)
{
    std::string safe = replaced(replaced(text, "\\", "\\e"), "-", "\\-");
    safe = replaced(safe, "\n", " ");
    return !safe.empty() && (safe.front() == '.' || safe.front() == '\'') ? "\\&" + safe : safe;
}

void append_list(const std::vector<OptionText>& options, std::string& page)
{
    for (const OptionText& option : options)
        page += fmt::format(".TP\n.B {}\n{}\n", roff(option.spelling), roff(option.help));
}

std::string manual_page(const CLI::App& app)
{
    std::string page = "'\\\" -*- coding: UTF-8 -*-\n.TH RANKSCOPE\\-CLI 1 \"\" \"Rankscope " RANKSCOPE_VERSION "\" \"User commands\"\n"
                       ".SH NAME\nrankscope\\-cli \\- compress language\\-model weights as Q + L\\(pcR\n"
                       ".SH SYNOPSIS\n.B rankscope\\-cli\n.I SUBCOMMAND\n[\\fIOPTIONS\\fR]\n.SH DESCRIPTION\n"
                       + roff(app.get_description()) + "\n.SH GLOBAL OPTIONS\n";
    append_list(command_text(app).options, page);
    page += ".SH SUBCOMMANDS\n";
    for (const CommandText& command : subcommands(app)) {
        page += fmt::format(".SS {}\n{}.\n.PP\n.B {}\n", roff(command.name), roff(command.help),
                            roff(usage(command)));
        append_list(command.options, page);
    }
    page += ".SH EXIT STATUS\n" + std::string(k_exit_status) + ".\n.SH SEE ALSO\n.BR rankscope (1)\n";
    return replaced(replaced(page, "\u2248", "\\(ap"), "\u00b7", "\\(pc");
}

std::string long_names(const std::vector<OptionText>& options)
{
    std::string names;
    for (const OptionText& option : options) {
        const std::size_t from = option.spelling.find("--");
        if (!option.positional && from != std::string::npos)
            names += (names.empty() ? "" : " ")
                     + option.spelling.substr(from, option.spelling.find(' ', from) - from);
    }
    return names;
}

std::string bash_completion(const CLI::App& app)
{
    const auto commands = subcommands(app);
    std::string names;
    std::string cases;
    for (const CommandText& command : commands) {
        names += (names.empty() ? "" : " ") + command.name;
        cases += fmt::format("        {}) options=\"{}\" ;;\n", command.name, long_names(command.options));
    }
    return fmt::format(R"(# bash completion for rankscope-cli
_rankscope_cli()
{{
    local word=${{COMP_WORDS[COMP_CWORD]}} command= options= i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case " {0} " in *" ${{COMP_WORDS[i]}} "*) command=${{COMP_WORDS[i]}}; break ;; esac
    done
    case $command in
{1}        *) options="" ;;
    esac
    if [[ $word == -* ]]; then
        COMPREPLY=($(compgen -W "$options {2}" -- "$word"))
    elif [[ -z $command ]]; then
        COMPREPLY=($(compgen -W "{0}" -- "$word"))
    else
        COMPREPLY=($(compgen -f -- "$word"))
    fi
}}
complete -o filenames -F _rankscope_cli rankscope-cli
)",
                       names, cases, long_names(command_text(app).options));
}

/// Within single quotes of a shell that ends them to hold one, and on one line.
std::string quoted(const std::string& text)
{
    return "'" + replaced(replaced(text, "\n", " "), "'", "'\\''") + "'";
}

/// The long names with what they mean and whether a value follows.
struct LongOption {
    std::string name; ///< without dashes
    std::string help;
    bool takes_value = false;
};

std::vector<LongOption> long_options(const std::vector<OptionText>& options)
{
    std::vector<LongOption> result;
    for (const OptionText& option : options) {
        const std::size_t from = option.spelling.find("--");
        if (option.positional || from == std::string::npos)
            continue;
        const std::size_t end = option.spelling.find(' ', from);
        const std::size_t length = end == std::string::npos ? end : end - from - 2;
        result.push_back({option.spelling.substr(from + 2, length), option.help, end != std::string::npos});
    }
    return result;
}

std::string zsh_list(const std::vector<OptionText>& options)
{
    std::string list;
    for (const LongOption& option : long_options(options))
        list += " " + quoted("--" + option.name + ":" + option.help);
    return list;
}

std::string zsh_completion(const CLI::App& app)
{
    std::string names;
    std::string cases;
    for (const CommandText& command : subcommands(app)) {
        names += "    " + quoted(command.name + ":" + command.help) + "\n";
        cases += fmt::format("    {}) options=({} ) ;;\n", command.name, zsh_list(command.options));
    }
    return fmt::format(R"(#compdef rankscope-cli
# zsh completion for rankscope-cli
_rankscope_cli() {{
  local -a commands options
  local command= word
  commands=(
{}  )
  for word in ${{words[2,CURRENT-1]}}; do
    if (( ${{commands[(I)$word:*]}} )); then command=$word; break; fi
  done
  case $command in
{}  esac
  options+=({} )
  if [[ $PREFIX == -* ]]; then
    _describe -o option options
  elif [[ -z $command ]]; then
    _describe command commands
  else
    _files
  fi
}}
_rankscope_cli "$@"
)",
                       names, cases, zsh_list(command_text(app).options));
}

/// fish escapes a quote within quotes by a backslash.
std::string fish_quoted(const std::string& text)
{
    return "'" + replaced(replaced(replaced(text, "\n", " "), "\\", "\\\\"), "'", "\\'") + "'";
}

std::string fish_options(const std::vector<OptionText>& options, const std::string& condition)
{
    std::string lines;
    for (const LongOption& option : long_options(options))
        lines += fmt::format("complete -c rankscope-cli{} -l {}{} -d {}\n", condition, option.name,
                             option.takes_value ? " -r" : "", fish_quoted(option.help));
    return lines;
}

std::string fish_completion(const CLI::App& app)
{
    std::string text = "# fish completion for rankscope-cli\n" + fish_options(command_text(app).options, "");
    for (const CommandText& command : subcommands(app)) {
        text += fmt::format("complete -c rankscope-cli -n __fish_use_subcommand -f -a {} -d {}\n", command.name,
                            fish_quoted(command.help));
        text += fish_options(command.options,
                             fmt::format(" -n '__fish_seen_subcommand_from {}'", command.name));
    }
    return text;
}

std::string reference_text(const CLI::App& app, const std::string& format)
{
    if (format == "man")
        return manual_page(app);
    if (format == "bash")
        return bash_completion(app);
    if (format == "zsh")
        return zsh_completion(app);
    return format == "fish" ? fish_completion(app) : markdown(app);
}

} // namespace

void add_reference(Program& program)
{
    const auto format = std::make_shared<std::string>("markdown");
    auto* command = program.add("reference", "This description of the command line",
                                [&program, format](Session&) -> Result<Output> {
                                    Output output;
                                    output.text = reference_text(program.app, *format);
                                    output.document.set("format", *format);
                                    output.document.set("text", output.text);
                                    return output;
                                });
    command
        ->add_option("--format", *format, "markdown: docs/cli.md; man: the manual page; bash, zsh, fish: their completion")
        ->check(CLI::IsMember({"markdown", "man", "bash", "zsh", "fish"}));
}

} // namespace rankscope::cli
