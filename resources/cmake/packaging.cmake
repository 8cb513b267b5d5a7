# What `cmake --install` and the Debian package hold beside the programs: manual pages, completion, desktop entry.
set(generated ${CMAKE_BINARY_DIR}/packaging)
file(MAKE_DIRECTORY ${generated})
foreach(pair "man:rankscope-cli.1" "bash:rankscope-cli" "zsh:_rankscope-cli" "fish:rankscope-cli.fish")
  string(REPLACE ":" ";" pair ${pair})
  list(GET pair 0 format)
  list(GET pair 1 name)
  add_custom_command(OUTPUT ${generated}/${name}
    COMMAND rankscope-cli reference --format ${format} > ${generated}/${name}
    DEPENDS rankscope-cli VERBATIM)
  list(APPEND pages ${generated}/${name})
endforeach()
add_custom_target(rankscope_reference ALL DEPENDS ${pages})

install(DIRECTORY ${CMAKE_SOURCE_DIR}/resources/sample DESTINATION ${CMAKE_INSTALL_DATADIR}/rankscope)
install(FILES ${generated}/rankscope-cli.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES ${generated}/rankscope-cli DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(FILES ${generated}/_rankscope-cli DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions)
install(FILES ${generated}/rankscope-cli.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
install(FILES ${CMAKE_SOURCE_DIR}/README.md ${CMAKE_SOURCE_DIR}/LICENSE ${CMAKE_SOURCE_DIR}/THIRD_PARTY.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
if(RANKSCOPE_WORKBENCH)
  install(FILES ${CMAKE_SOURCE_DIR}/resources/man/rankscope.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
  install(FILES ${CMAKE_SOURCE_DIR}/resources/desktop/rankscope.desktop
    DESTINATION ${CMAKE_INSTALL_DATADIR}/applications)
  install(FILES ${CMAKE_SOURCE_DIR}/resources/desktop/rankscope.xml
    DESTINATION ${CMAKE_INSTALL_DATADIR}/mime/packages)
  install(FILES ${CMAKE_SOURCE_DIR}/resources/icons/rankscope.svg
    DESTINATION ${CMAKE_INSTALL_DATADIR}/icons/hicolor/scalable/apps)
endif()

set(CPACK_PACKAGE_CONTACT "Rankscope maintainers <maintainers@rankscope.invalid>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY ${PROJECT_DESCRIPTION})
set(CPACK_PACKAGE_FILE_NAME rankscope_${PROJECT_VERSION}_${CMAKE_SYSTEM_PROCESSOR})
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
# Opened at run time, so that no library names them.
set(CPACK_DEBIAN_PACKAGE_DEPENDS "libvulkan1, libqt6svg6, fonts-dejavu-core")
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "mesa-vulkan-drivers, qt6-wayland")
# The programs alone; the library's headers come with cmake --install.
set(CPACK_COMPONENTS_ALL Unspecified)
set(CPACK_COMPONENTS_GROUPING ALL_COMPONENTS_IN_ONE)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_ARCHIVE_COMPONENT_INSTALL ON)
set(CPACK_GENERATOR "DEB;TGZ")
include(CPack)
